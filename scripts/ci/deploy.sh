#!/usr/bin/env bash
# A commit to an environment: its images, if they are signed as they should be, then its DAGs, then the smoke test.
#   ROLL_OUT=<command that rolls out the images of build/images.txt> REGISTRY=... SIGNED_BY=... \
#   GATEWAY_URL=... AIRFLOW_URL=... AIRFLOW_PASSWORD_FILE=... \
#     scripts/ci/deploy.sh staging <commit> flight_delay
set -euo pipefail
cd "$(dirname "$0")/../.."

environment=${1:?expected an environment} commit=${2:?expected a commit} use_case=${3:?expected a use case}
: "${ROLL_OUT:?expected the command that rolls images out there}"
COMMIT=$commit scripts/ci/verify_images.sh
COMMIT=$commit bash -euo pipefail -c "$ROLL_OUT"
scripts/ci/deploy_dags.sh "$environment" "$commit"
scripts/ci/smoke.sh "$use_case" --dag-version "$commit"
