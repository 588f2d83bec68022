#!/usr/bin/env bash
# Trains and judges a model of this checkout on fixed days of 2013, through the whole local stack, and leaves its
# verdict in build/verdict.json: two commits that do this are measured on the same rows.
#   scripts/ci/train_model.sh [use case]
set -euo pipefail
cd "$(dirname "$0")/../.."

use_case=${1:-flight_delay}
make setup
mkdir -p build
.airloop/venv/bin/python -m airloop.stack run --use-case "$use_case" --as-of 2013-11-04
.airloop/venv/bin/python -m airloop.stack down
find ".airloop/reports/$use_case" -name verdict.json -printf '%T@ %p\n' | sort -n | tail -n 1 |
  cut -d ' ' -f 2- | xargs -I '{}' cp '{}' build/verdict.json
