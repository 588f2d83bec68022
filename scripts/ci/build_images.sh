#!/usr/bin/env bash
# Builds an image for each dependency group, tagged with the commit and nothing else: a tag means one state of the
# code for ever. Its environment is that of the hashed lock; its files bear the commit's time.
#   REGISTRY=ghcr.io/example scripts/ci/build_images.sh
set -euo pipefail
source "$(dirname "$0")/names.sh"

[ "$COMMIT" = "$(git rev-parse HEAD)" ] || fail "expected $COMMIT to be checked out. Next: git checkout it."
[ -z "$(git status --porcelain)" ] || fail "expected a clean checkout, found changes. Next: commit or stash them."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml | head -n 1)

for group in "${groups[@]}"; do
  echo "build: $(image_of "$group")"
  docker buildx build . \
    --file serving/images/Dockerfile \
    --build-arg "GROUP=$group" \
    --build-arg "COMMIT=$COMMIT" \
    --build-arg "SOURCE_DATE_EPOCH=$(git log -1 --format=%ct "$COMMIT")" \
    --label "org.opencontainers.image.revision=$COMMIT" \
    --label "org.opencontainers.image.version=$version" \
    --label "org.opencontainers.image.title=airloop-$group" \
    --tag "$(image_of "$group")" \
    --load
done
