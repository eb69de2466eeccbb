#!/bin/sh
# Prepares a new primary. PostgreSQL's image runs it once, as its superuser, while the server has its socket alone.
set -eu

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
  --set app_password="$APP_PASSWORD" --set replication_password="$REPLICATION_PASSWORD" <<'SQL'
CREATE ROLE app LOGIN PASSWORD :'app_password';
CREATE DATABASE app OWNER app;
-- Package db sees by it sooner which server a replica follows after a failover.
GRANT pg_read_all_stats TO app;
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replication_password';
-- Keeps the WAL that the replica still needs, up to max_slot_wal_keep_size.
SELECT FROM pg_create_physical_replication_slot('replica', true);
SQL

# "all", in the image's own line, does not stand for replication.
echo 'host replication replicator samenet scram-sha-256' >>"$PGDATA/pg_hba.conf"
