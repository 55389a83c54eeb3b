#!/bin/sh
# Starts the Temporal server with the database password from a file: the image itself reads it from the
# environment alone, where `docker inspect` would show it.
set -eu

: "${POSTGRES_PWD_FILE:?file that holds the password}"
POSTGRES_PWD=$(cat "$POSTGRES_PWD_FILE")
export POSTGRES_PWD

# Listens on every address of the container, and tells the cluster one of them that it can be reached at.
: "${BIND_ON_IP:=0.0.0.0}"
: "${TEMPORAL_BROADCAST_ADDRESS:=$(getent hosts "$(hostname)" | awk '{ print $1; exit }')}"
export BIND_ON_IP TEMPORAL_BROADCAST_ADDRESS

exec temporal-server start
