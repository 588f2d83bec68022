#!/usr/bin/env bash
# How large each image is that build_images.sh built, unpacked, and the groups that are in it.
#   REGISTRY=localhost scripts/ci/image_sizes.sh     ENGINE=buildah where that built them
set -euo pipefail
source "$(dirname "$0")/names.sh"

for name in "${names[@]}"; do
  size=$("${ENGINE:-docker}" images --format '{{.Size}}' "$(image_of "$name")") && [ -n "$size" ] ||
    fail "expected $(image_of "$name"), found none. Next: scripts/ci/build_images.sh."
  printf '%8s  airloop-%s (%s)\n' "${size/ /}" "$name" "$(groups_of "$name")"
done
