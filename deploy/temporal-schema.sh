#!/bin/sh
# Makes or updates Temporal's two databases, then ends. Safe to run again: what is there is kept, and only
# the schema versions that are missing are applied, so an upgrade of the server runs this first.
set -eu

: "${SQL_HOST:?host of PostgreSQL}" "${SQL_USER:?}" "${SQL_PASSWORD_FILE:?file that holds the password}"
export SQL_PLUGIN=postgres12
SQL_PASSWORD=$(cat "$SQL_PASSWORD_FILE")
export SQL_PASSWORD

for kind in temporal visibility; do
  case $kind in
    temporal) database=temporal ;;
    visibility) database=temporal_visibility ;;
  esac
  temporal-sql-tool --db "$database" create
  temporal-sql-tool --db "$database" setup-schema --version 0.0
  temporal-sql-tool --db "$database" update-schema --schema-name "postgresql/v12/$kind"
done
echo 'schema: both databases are up to date'
