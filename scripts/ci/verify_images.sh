#!/usr/bin/env bash
# Whether each published image was signed by this repository's own workflow; nothing else is deployed.
#   REGISTRY=ghcr.io/example \
#   SIGNED_BY='^https://github\.com/example/airloop/\.github/workflows/main\.yaml@refs/heads/main$' \
#     scripts/ci/verify_images.sh
set -euo pipefail
source "$(dirname "$0")/names.sh"
: "${SIGNED_BY:?expected a regular expression of the identities that may sign, in SIGNED_BY}"
issuer=${OIDC_ISSUER:-https://token.actions.githubusercontent.com}
bash scripts/ci/install_tools.sh cosign

images=$(published)
while read -r _ image; do
  for what in verify "verify-attestation --type cyclonedx"; do
    # shellcheck disable=SC2086  # two words: a command and its flag
    .airloop/bin/cosign $what --certificate-identity-regexp "$SIGNED_BY" --certificate-oidc-issuer "$issuer" \
      "$image" >/dev/null
  done
  echo "verified: $image"
done <<<"$images"
