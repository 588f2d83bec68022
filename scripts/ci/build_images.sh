#!/usr/bin/env bash
# Builds each image, tagged with the commit and nothing else: a tag means one state of the code for ever. Its packages
# are those of the hashed locks; it bears the commit's time.
#   REGISTRY=ghcr.io/example scripts/ci/build_images.sh
#   ENGINE=buildah REGISTRY=localhost scripts/ci/build_images.sh     without Docker; the later steps ask Docker
set -euo pipefail
source "$(dirname "$0")/names.sh"

[ "$COMMIT" = "$(git rev-parse HEAD)" ] || fail "expected $COMMIT to be checked out. Next: git checkout it."
[ -z "$(git status --porcelain)" ] || fail "expected a clean checkout, found changes. Next: commit or stash them."
moment=$(git log -1 --format=%ct "$COMMIT")
case ${ENGINE:-docker} in
  docker) build_image=(docker buildx build --load --build-arg "SOURCE_DATE_EPOCH=$moment") ;;
  buildah) build_image=(buildah build --layers --format docker --timestamp "$moment") ;;
  *) fail "expected docker or buildah in ENGINE, found $ENGINE." ;;
esac
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml | head -n 1)

for name in "${names[@]}"; do
  groups=$(groups_of "$name")
  [ -n "$groups" ] || fail "expected an image of docker-compose.yaml, found $name."
  echo "build: $(image_of "$name"), $groups"
  "${build_image[@]}" \
    --file serving/images/Dockerfile \
    --build-arg "GROUPS=$groups" \
    --build-arg "COMMIT=$COMMIT" \
    --label "org.opencontainers.image.revision=$COMMIT" \
    --label "org.opencontainers.image.version=$version" \
    --label "org.opencontainers.image.title=airloop-$name" \
    --tag "$(image_of "$name")" \
    .
done
