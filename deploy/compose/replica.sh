#!/bin/sh
# Starts a streaming replica of PRIMARY_HOST, with the arguments for the server; without data it makes a copy of the primary
# first. A copy that was cut short is never taken for a database: it gets its name when it is complete.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  unfinished=$PGDATA.unfinished
  until
    rm -rf "$unfinished"
    PGPASSWORD=$REPLICATION_PASSWORD pg_basebackup --pgdata "$unfinished" --write-recovery-conf --wal-method stream \
      --slot replica --checkpoint fast --no-password \
      --dbname "host=$PRIMARY_HOST port=${PRIMARY_PORT:-5432} user=replicator application_name=replica"
  do
    echo "replica: the primary gives no copy yet; the next attempt is in a second" >&2
    sleep 1
  done
  chmod 0700 "$unfinished"
  rm -rf "$PGDATA"
  mv "$unfinished" "$PGDATA"
fi

exec postgres -D "$PGDATA" "$@"
