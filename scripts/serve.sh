#!/bin/sh
# Serves this checkout; `make run`. The environment passes through to the service.
set -eu
cd "$(dirname "$0")/.."

"${PYTHON:-python3}" scripts/set_up.py run

# Running scripts is off until an operator allows it for an owner. The sample folder that
# ships with the code is the one exception: it is `main`'s, and is allowed here unless
# anything about folder, owner or permission was configured.
if [ -z "${SKILLWIRE_SCRIPTS_ALLOWED_OWNERS+x}${SKILLWIRE_SKILLS_DIR+x}${SKILLWIRE_OWNER+x}" ] &&
    ! grep -Eqs '^[[:space:]]*(scripts_allowed_owners|skills_dir|owner)[[:space:]]*=' skillwire.toml; then
    export SKILLWIRE_SCRIPTS_ALLOWED_OWNERS='["main"]'
fi

exec .venv/bin/skillwire serve "$@"
