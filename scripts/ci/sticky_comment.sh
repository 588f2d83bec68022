#!/usr/bin/env bash
# Writes a comment on a pull request, in place of an earlier one with the same first line. GitHub's own (gh).
#   GH_TOKEN=... scripts/ci/sticky_comment.sh example/airloop 17 comment.md
set -euo pipefail

repository=${1:?expected owner/name} number=${2:?expected the number of a pull request} file=${3:?expected a file}
[[ $number =~ ^[0-9]+$ ]] || {
  echo "sticky_comment.sh: expected the number of a pull request, found $number" >&2
  exit 1
}
marker=$(head -n 1 "$file")
id=$(gh api --paginate "repos/$repository/issues/$number/comments" |
  jq --raw-output --slurp --arg marker "$marker" \
    'add | map(select(.user.type == "Bot" and (.body | startswith($marker)))) | first | .id // empty')
if [ -n "$id" ]; then
  gh api --method PATCH "repos/$repository/issues/comments/$id" --field body=@"$file" >/dev/null
else
  gh api --method POST "repos/$repository/issues/$number/comments" --field body=@"$file" >/dev/null
fi
