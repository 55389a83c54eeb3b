#!/bin/sh
# Makes the files that docker-compose.yml takes its secrets from. Existing files are kept.
# Usage: deploy/secrets.sh [folder, default ./secrets]. What only you can know is left to you, and named.
set -eu

folder=${1:-secrets}
mkdir -p "$folder"
# The folder keeps other users of this machine out. The files are readable, because the containers' own users,
# none of them root, read them through a bind mount of the file alone.
chmod 700 "$folder"

umask 077
# Printable characters only: these stand in headers and connection strings.
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

for name in postgres_password stigmem_admin_key slack_bot_token slack_signing_secret; do
  file=$folder/$name
  if [ ! -s "$file" ]; then
    case $name in
      stigmem_admin_key)
        random > "$file"
        echo "$file: made, good for the node of profile stigmem; for a node of your own put its admin key there"
        ;;
      postgres_password)
        random > "$file"
        echo "$file: made"
        ;;
      *)
        echo "$file: missing; put it there before the chat starts"
        continue
        ;;
    esac
  fi
done

# Yours among them, whatever they are called: you may write again what the containers may only read.
for file in "$folder"/*; do
  chmod 644 "$file"
done
