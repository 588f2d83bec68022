#!/usr/bin/env bash
# Copies the champion of one environment to the next one's registry, if its verdict accepts it, its files are as
# they were signed and its code is on main; then starts the rollout there, in which it has to earn its traffic.
#   SOURCE_MLFLOW_URI=https://mlflow.staging.example.org \
#   AIRLOOP_MLFLOW_URI=https://mlflow.example.org AIRLOOP_VERIFICATION_KEY=verification_key.pem \
#   AIRFLOW_URL=https://airflow.example.org AIRFLOW_PASSWORD_FILE=password \
#     scripts/ci/promote_model.sh flight_delay
# Further flags are those of airloop.delivery.promote_model, such as --dry-run: then no rollout is started.
set -euo pipefail
cd "$(dirname "$0")/../.."

use_case=${1:?expected a use case}
shift
mkdir -p build
result=build/promoted-$use_case.json
.airloop/venv/bin/python -m airloop.delivery.promote_model --use-case "$use_case" \
  --from-mlflow "${SOURCE_MLFLOW_URI:?expected the address of the MLflow that it leaves}" \
  --repository "$PWD" --result "$result" "$@"
case " $* " in *" --dry-run "*) exit 0 ;; esac
.airloop/venv/bin/python -m airloop.delivery.start_rollout --use-case "$use_case" --promoted "$result" \
  --airflow-url "${AIRFLOW_URL:?expected the address of the Airflow that it goes to}" \
  --airflow-login "${AIRFLOW_LOGIN:-admin}" \
  --airflow-password-file "${AIRFLOW_PASSWORD_FILE:?expected a file with the password}"
