#!/usr/bin/env bash
# Signs each published image and attests its bills of materials, both by digest and without a key: the identity is
# that of the workflow (OIDC), the certificate lives ten minutes, the record is in Sigstore's public log.
#   REGISTRY=ghcr.io/example scripts/ci/sign_images.sh
set -euo pipefail
source "$(dirname "$0")/names.sh"
bash scripts/ci/install_tools.sh cosign

images=$(published)
while read -r name image; do
  echo "sign: $image"
  .airloop/bin/cosign sign --yes "$image"
  # One for each lock that it was made from.
  for group in $(groups_of "$name"); do
    bash scripts/ci/sbom.sh "$group" >/dev/null
    .airloop/bin/cosign attest --yes --type cyclonedx --predicate "$build/sbom/$group.cdx.json" "$image"
  done
done <<<"$images"
