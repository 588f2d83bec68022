# shellcheck shell=bash
# What the image scripts agree on; sourced, not run. From the environment:
#   REGISTRY   where images go, such as ghcr.io/example or 123456789012.dkr.ecr.eu-central-1.amazonaws.com
#   COMMIT     what they are made from; by default what is checked out
#   IMAGES     names of images; by default all that docker-compose.yaml builds

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root" || exit
: "${REGISTRY:?expected the registry that images go to, such as ghcr.io/example, in REGISTRY}"
COMMIT=${COMMIT:-$(git rev-parse HEAD)}

# Name and dependency groups of each image that docker-compose.yaml builds, one image a line.
declared() {
  awk '
    /^ *image: airloop-/ { split($2, part, ":"); name = substr(part[1], 9) }
    /^ *build: .*GROUPS: / { match($0, /GROUPS: [a-z -]+/); print name, substr($0, RSTART + 8, RLENGTH - 8) }
  ' docker-compose.yaml
}

groups_of() {
  declared | sed -n "s/^$1 //p"
}

# shellcheck disable=SC2034  # those that source this use it
read -r -a names <<<"${IMAGES:-$(declared | cut -d ' ' -f 1 | paste -s -d ' ')}"
export build=$root/build
mkdir -p "$build/sbom"

fail() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  exit 1
}

[[ $COMMIT =~ ^[0-9a-f]{40}$ ]] || fail "expected a whole commit in COMMIT, found $COMMIT. Next: git rev-parse it."

image_of() {
  printf '%s/airloop-%s:%s' "$REGISTRY" "$1" "$COMMIT"
}

# Name and image by digest, one a line, as publish_images.sh found them in the registry.
published() {
  [ -s "$build/images.txt" ] || fail "expected $build/images.txt, found none. Next: scripts/ci/publish_images.sh."
  cat "$build/images.txt"
}
