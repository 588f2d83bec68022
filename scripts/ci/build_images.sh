#!/usr/bin/env bash
# Builds each image, tagged with the commit and nothing else: a tag means one state of the code for ever. Its packages
# are those of the hashed locks; it bears the commit's time.
#   REGISTRY=ghcr.io/example scripts/ci/build_images.sh
set -euo pipefail
source "$(dirname "$0")/names.sh"

[ "$COMMIT" = "$(git rev-parse HEAD)" ] || fail "expected $COMMIT to be checked out. Next: git checkout it."
[ -z "$(git status --porcelain)" ] || fail "expected a clean checkout, found changes. Next: commit or stash them."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml | head -n 1)

for name in "${names[@]}"; do
  groups=$(groups_of "$name")
  [ -n "$groups" ] || fail "expected an image of docker-compose.yaml, found $name."
  echo "build: $(image_of "$name"), $groups"
  docker buildx build . \
    --file serving/images/Dockerfile \
    --build-arg "GROUPS=$groups" \
    --build-arg "COMMIT=$COMMIT" \
    --build-arg "SOURCE_DATE_EPOCH=$(git log -1 --format=%ct "$COMMIT")" \
    --label "org.opencontainers.image.revision=$COMMIT" \
    --label "org.opencontainers.image.version=$version" \
    --label "org.opencontainers.image.title=airloop-$name" \
    --tag "$(image_of "$name")" \
    --load
done
