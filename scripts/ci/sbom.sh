#!/usr/bin/env bash
# A bill of materials (CycloneDX 1.6, JSON) for each hashed lock, so for the Python packages of each image, in
# build/sbom/. Needs no network and no image; the same lock gives the same bytes.
#   scripts/ci/sbom.sh [lock...]     such as: serving; by default all
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p build/sbom

if [ $# -eq 0 ]; then
  for lock in requirements/*.lock; do set -- "$@" "$(basename "$lock" .lock)"; done
fi
for name in "$@"; do
  # The root's own dependencies are groups, which pyproject.toml states and the tool does not read: it warns.
  PYTHONWARNINGS=ignore .airloop/venv/bin/cyclonedx-py requirements --output-reproducible \
    --spec-version 1.6 --output-format JSON --pyproject pyproject.toml \
    --output-file "build/sbom/$name.cdx.json" "requirements/$name.lock"
done
ls build/sbom
