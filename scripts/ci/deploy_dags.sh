#!/usr/bin/env bash
# Lets an environment's Airflow take the DAGs of a commit: moves the branch that its Git bundle tracks,
# deploy/<environment>. Runs that are under way end with the commit that they began with.
#   scripts/ci/deploy_dags.sh staging <commit>
#   scripts/ci/deploy_dags.sh production <commit> --back     an earlier commit, on purpose
# Forwards only, and only to what is on main; the images of the commit are to be rolled out before.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() {
  printf 'deploy_dags.sh: %s\n' "$1" >&2
  exit 1
}

[[ $# -ge 2 && $1 =~ ^[a-z][a-z0-9-]*$ && $2 =~ ^[0-9a-f]{40}$ ]] ||
  fail "expected an environment and a whole commit, found: $*"
environment=$1 commit=$2 back=${3:-}
remote=${REMOTE:-origin}
branch=deploy/$environment

git fetch --quiet "$remote" main
git merge-base --is-ancestor "$commit" FETCH_HEAD ||
  fail "expected a commit of $remote's main, found $commit. Next: merge it first."
found=$(git ls-remote "$remote" "refs/heads/$branch" | cut -f 1)
if [ "$found" = "$commit" ]; then
  echo "deploy: $branch is at $commit"
  exit 0
fi
if [ -n "$found" ] && [ "$back" != --back ]; then
  git merge-base --is-ancestor "$found" "$commit" ||
    fail "expected a commit after $found, which $environment has, found $commit. Next: --back, if it is meant."
fi
# Only from what was seen: of two deployments at once the second fails.
git push --quiet --force-with-lease="refs/heads/$branch:$found" "$remote" "$commit:refs/heads/$branch"
echo "deploy: $branch is at $commit, was at ${found:-nothing}"
