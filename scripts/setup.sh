#!/usr/bin/env bash
# Sets up everything under .airloop/: uv, the locked environment, a Java check, Spark's pinned jars.
# Each step leaves a stamp, so that a second call is quick and an interrupted one resumes.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
state=$root/.airloop
python=${PYTHON:-python3.11}
mkdir -p "$state/stamps"

fail() {
  printf 'set-up: %s\n' "$1" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

apt_install() {
  command -v apt-get >/dev/null || fail "expected $1, found none and no apt-get. Next: install $1 yourself."
  echo "set-up: installing $1 with apt-get"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >/dev/null
}

command -v "$python" >/dev/null || fail "expected Python 3.11 as $python, found none. Next: install it, or set PYTHON."

# Python's own venv brings pip, which brings uv; nothing else of it is used.
if ! "$state/tools/bin/uv" --version >/dev/null 2>&1; then
  echo "set-up: uv"
  rm -rf "$state/tools"
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then apt_install python3.11-venv; fi
  "$python" -m venv "$state/tools"
  "$state/tools/bin/pip" install --quiet --require-hashes -r "$root/requirements/uv.lock"
fi
uv=$state/tools/bin/uv

fingerprint=$(cat "$root/requirements/local.lock" "$root/pyproject.toml" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$state/stamps/venv" 2>/dev/null || true)" != "$fingerprint" ]; then
  echo "set-up: the locked environment (about 3.5 GB)"
  [ -x "$state/venv/bin/python" ] || "$uv" venv --quiet --python "$python" "$state/venv"
  "$uv" pip sync --quiet --python "$state/venv/bin/python" --require-hashes "$root/requirements/local.lock"
  "$uv" pip install --quiet --python "$state/venv/bin/python" --no-deps --no-build-isolation --editable "$root"
  echo "$fingerprint" >"$state/stamps/venv"
fi

java_is_usable() {
  local version
  version=$("${JAVA_HOME:+$JAVA_HOME/bin/}java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p') || return 1
  [ -n "$version" ] && [ "$version" -ge 17 ] && [ "$version" -lt 25 ]
}
java_is_usable || apt_install openjdk-17-jre-headless
java_is_usable || fail "expected Java 17 or 21, found $(java -version 2>&1 | head -n 1). Next: set JAVA_HOME to one."

if ! (cd "$root" && [ -d "$state/jars" ] && sha256sum --status --check requirements/jars.sha256) 2>/dev/null; then
  echo "set-up: Spark's jars"
  "$state/venv/bin/python" "$root/scripts/fetch_jars.py" "$state"
  (cd "$root" && sha256sum --status --check requirements/jars.sha256) ||
    fail "expected the jars that requirements/jars.sha256 pins, found others. Next: look at them in $state/jars."
fi
