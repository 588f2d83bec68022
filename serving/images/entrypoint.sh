#!/bin/sh
# PostgreSQL's clients take a password file that only its owner can read, and a mounted secret is not such a file. The
# image's PGPASSFILE names the copy, for health checks and whatever else is run beside the program too.
set -eu
if [ -r /run/secrets/pgpass ]; then
  umask 077
  cp /run/secrets/pgpass /tmp/pgpass
  umask 022
fi
exec "$@"
