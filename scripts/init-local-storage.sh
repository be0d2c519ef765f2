#!/bin/sh
# Makes the tables and the bucket of STORAGE_BACKEND=s3 on an emulator, where they are missing:
# `scripts/init-local-storage.sh [URL]`, by default the emulators of deploy/compose.yaml. Names and
# region are those of the environment, as for the service.
set -eu
url="${1:-http://127.0.0.1:5000}"
cd "$(dirname "$0")/.."

export STORAGE_BACKEND=s3 S3_ENDPOINT_URL="$url" DYNAMODB_ENDPOINT_URL="$url"
# An emulator takes any key; one that is set is kept.
export AWS_ACCESS_KEY_ID="${AWS_ACCESS_KEY_ID:-local}" AWS_SECRET_ACCESS_KEY="${AWS_SECRET_ACCESS_KEY:-local}"

"${PYTHON:-python3}" scripts/set_up.py run
exec .venv/bin/skillwire init-storage
