#!/usr/bin/env bash
# Writes the variable NAME to a file that its owner alone may read: what reads secrets reads files.
#   scripts/ci/secret_file.sh AIRFLOW_PASSWORD "$RUNNER_TEMP/airflow_password"
set -euo pipefail

name=${1:?expected the name of a variable} file=${2:?expected a file}
umask 077
printf '%s\n' "${!name:?expected the variable $name to have a value}" >"$file"
