#!/usr/bin/env bash
# Makes the image that stands in for python:<version>-slim-bookworm where no registry of images can be reached: Debian
# by debootstrap, with Debian's Python 3.11. It trusts the authorities that this machine trusts.
set -euo pipefail
tag=$1
podman image exists "$tag" && exit
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
debootstrap --variant=minbase --include=ca-certificates,netbase,tzdata \
  bookworm "$folder" >"$folder.log" 2>&1 || { tail "$folder.log" >&2; exit 1; }
chroot "$folder" apt-get install -y -qq --no-install-recommends python3.11 python3.11-venv >"$folder.log" 2>&1 ||
  { tail "$folder.log" >&2; exit 1; }
mkdir -p "$folder/usr/local/share/ca-certificates"
cp /usr/local/share/ca-certificates/*.crt "$folder/usr/local/share/ca-certificates/" 2>/dev/null || true
chroot "$folder" update-ca-certificates >/dev/null 2>&1
ln -sf python3.11 "$folder/usr/bin/python"
ln -sf python3.11 "$folder/usr/bin/python3"
rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/* "$folder"/usr/share/doc "$folder"/usr/share/man
tar -C "$folder" -c . | podman import --change 'CMD ["python"]' \
  --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' \
  --change 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' - "$tag" >/dev/null
