#!/usr/bin/env bash
# Looks for known vulnerabilities in what was built, Debian's packages and Java's included: fails on a high or
# critical one that has a fix. What is accepted for a while stands in .grype.yaml, with its reason.
#   REGISTRY=ghcr.io/example scripts/ci/scan_images.sh
set -euo pipefail
source "$(dirname "$0")/names.sh"
bash scripts/ci/install_tools.sh grype

status=0
for name in "${names[@]}"; do
  echo "scan: $(image_of "$name")"
  .airloop/bin/grype "docker:$(image_of "$name")" --config .grype.yaml --fail-on high --only-fixed \
    --output table --output "json=$build/scan-$name.json" || status=1
done
[ "$status" -eq 0 ] || fail "expected no high vulnerability that has a fix, found some (above). Next: make lock, \
or a newer base image; or accept it in .grype.yaml, with a reason and a date."
