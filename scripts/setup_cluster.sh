#!/usr/bin/env bash
# What `make test-cluster` and `make test-faults` need beside the tests' own: podman with runc (as root), an S3 server.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
state=$root/.airloop

[ "$(id -u)" -eq 0 ] || {
  echo "set-up: expected root, which podman needs to give services networks of their own. Next: sudo make test-cluster" >&2
  exit 1
}
missing=()
for program in podman runc iptables; do
  command -v "$program" >/dev/null || missing+=("$program")
done
[ -x /usr/lib/podman/netavark ] || missing+=(netavark)
[ -x /usr/lib/podman/aardvark-dns ] || missing+=(aardvark-dns)
# For `make test-faults`: a wrong clock, a small disk.
compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || missing+=(libfaketime)
command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs)
if [ ${#missing[@]} -gt 0 ]; then
  echo "set-up: installing ${missing[*]} with apt-get"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# The version that docker-compose.yaml runs.
version=$(sed -n 's#.*versity/versitygw:##p' "$root/docker-compose.yaml")
if [ ! -x "$state/bin/versitygw" ] || [ "$(cat "$state/stamps/versitygw" 2>/dev/null || true)" != "$version" ]; then
  echo "set-up: versitygw $version"
  [ ! -x "$state/go/bin/go" ] || PATH=$state/go/bin:$PATH
  GOBIN=$state/bin go install "github.com/versity/versitygw/cmd/versitygw@$version"
  echo "$version" >"$state/stamps/versitygw"
fi
