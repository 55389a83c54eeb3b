#!/bin/sh
# Makes the namespace of the incidents with its retention and the search attributes, then ends. Safe to run
# again. An existing namespace gets the retention set, so that a change in the compose file takes effect.
set -eu

: "${TEMPORAL_ADDRESS:?}" "${TEMPORAL_NAMESPACE:?}" "${RETENTION:?like 720h}" "${SEARCH_ATTRIBUTES:?names}"
tries=${TRIES:-60}

# Calls the command until it works, once a second; its last words are shown when it never does.
until_done() {
  what=$1
  shift
  try=1
  until said=$("$@" 2>&1); do
    if [ "$try" -ge "$tries" ]; then
      echo "namespace: $what failed $try times: $said" >&2
      exit 1
    fi
    try=$((try + 1))
    sleep 1
  done
}

make_namespace() {
  temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" ||
    temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "$RETENTION"
}

# A server just up, or a namespace just made, is not known everywhere at once: each step is tried again.
make_attributes() {
  have=$(temporal operator search-attribute list --namespace "$TEMPORAL_NAMESPACE") || return 1
  for name in $SEARCH_ATTRIBUTES; do
    if ! echo "$have" | grep -qw "$name"; then
      temporal operator search-attribute create --namespace "$TEMPORAL_NAMESPACE" --name "$name" --type Keyword || return 1
    fi
  done
}

until_done 'making it' make_namespace
until_done 'setting its retention' temporal operator namespace update --namespace "$TEMPORAL_NAMESPACE" --retention "$RETENTION"
until_done 'adding search attributes' make_attributes
echo "namespace: $TEMPORAL_NAMESPACE keeps closed runs $RETENTION, search attributes: $SEARCH_ATTRIBUTES"
