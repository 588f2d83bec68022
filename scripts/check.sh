#!/usr/bin/env bash
# Lint, format, types, import contracts, schemas, secrets, scripts, workflows: every hook of .pre-commit-config.yaml on every file.
set -euo pipefail
cd "$(dirname "$0")/.."
export PRE_COMMIT_HOME=.airloop/cache/pre-commit

# pre-commit asks git which files there are; an exported tree (or one that git does not trust) gets an index aside.
if ! git rev-parse --git-dir >/dev/null 2>&1; then
  export GIT_DIR=$PWD/.airloop/cache/check.git GIT_WORK_TREE=$PWD
  rm -rf "$GIT_DIR"
  mkdir -p .airloop/cache
  git init --quiet
  git add --all
fi
exec .airloop/venv/bin/python -m pre_commit run --all-files --show-diff-on-failure
