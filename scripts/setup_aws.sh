#!/usr/bin/env bash
# The environment that writes and checks the description of the AWS account: the CDK, its rules, a linter of IAM
# policies, and the node that the CDK runs on. 0.5 GB, apart from the product's own. Call scripts/setup.sh before.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
state=$root/.airloop
uv=$state/tools/bin/uv

fingerprint=$(sha256sum <"$root/requirements/aws.lock" | cut -d' ' -f1)
if [ "$(cat "$state/aws/stamp" 2>/dev/null || true)" != "$fingerprint" ]; then
  echo "set-up: the environment of deploy/aws"
  "$uv" venv --quiet --clear --python "$state/venv/bin/python" "$state/aws"
  "$uv" pip sync --quiet --python "$state/aws/bin/python" --require-hashes "$root/requirements/aws.lock"
  echo "$fingerprint" >"$state/aws/stamp"
fi
