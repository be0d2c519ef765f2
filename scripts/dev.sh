#!/usr/bin/env bash
# The service, restarted when Python code changes, and Vite's server in front of it, which
# reloads the dashboard and passes everything else on; `make dev`. Either one's end ends both.
#
# -m gives each a process group: npm does not pass signals on to Vite, and without it bash
# starts background jobs deaf to SIGINT, which is how watchfiles stops the service.
set -euo pipefail -m
cd "$(dirname "$0")/.."

groups=()
stop() {
    trap - EXIT
    for group in "${groups[@]}"; do
        kill -INT -- "-$group" 2> /dev/null || true
    done
    wait
}
trap stop EXIT
trap 'exit 130' INT TERM

.venv/bin/watchfiles --filter python ./scripts/serve.sh gateway services notifier < /dev/null &
groups+=($!)
npm --prefix frontend run dev < /dev/null &
groups+=($!)
wait -n
