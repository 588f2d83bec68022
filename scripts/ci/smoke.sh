#!/usr/bin/env bash
# Asks a deployment whether it works: Airflow's parts, its DAGs and their commit, the gateway and its version.
#   GATEWAY_URL=... AIRFLOW_URL=... AIRFLOW_PASSWORD_FILE=... scripts/ci/smoke.sh flight_delay [--dag-version COMMIT]
set -euo pipefail
cd "$(dirname "$0")/../.."

use_case=${1:?expected a use case}
shift
exec .airloop/venv/bin/python -m airloop.delivery.smoke --use-case "$use_case" \
  --gateway-url "${GATEWAY_URL:?expected the address of the gateway}" \
  ${GATEWAY_KEY_FILE:+--gateway-key-file "$GATEWAY_KEY_FILE"} \
  --airflow-url "${AIRFLOW_URL:?expected the address of Airflow}" \
  --airflow-login "${AIRFLOW_LOGIN:-admin}" \
  --airflow-password-file "${AIRFLOW_PASSWORD_FILE:?expected a file with the password}" "$@"
