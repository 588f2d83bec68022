#!/usr/bin/env bash
# Pushes what was built and scanned, and writes each image's digest to build/images.txt. A tag that is in the
# registry already is not written over. Log in first (docker login).
#   REGISTRY=ghcr.io/example scripts/ci/publish_images.sh
set -euo pipefail
source "$(dirname "$0")/names.sh"

: >"$build/images.txt.new"
for name in "${names[@]}"; do
  image=$(image_of "$name")
  if docker manifest inspect "$image" >/dev/null 2>&1; then
    echo "publish: $image is there"
    docker pull --quiet "$image" >/dev/null
  else
    docker push --quiet "$image"
  fi
  digest=$(docker inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image" |
    grep -m 1 -F "${image%:*}@sha256:") || fail "expected a digest of $image, found none. Next: push it by hand."
  printf '%s %s\n' "$name" "$digest" >>"$build/images.txt.new"
done
mv "$build/images.txt.new" "$build/images.txt"
cat "$build/images.txt"
