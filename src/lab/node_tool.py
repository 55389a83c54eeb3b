"""What a lab needs from a Stigmem node's own code, one verb a call: JSON on stdin, JSON on stdout.

Runs in the node's Python with the node's STIGMEM_ environment.
  bootstrap  {key, entity_uri, permissions, entities}  -> {node_id, entity_uri, manifest}
             registers the admin key when there is no key yet; signs a manifest (not yet published)
  declare    {local_url, scopes}                       -> the body of POST /v1/federation/peers
  sql        {db, query, params}                       -> [row, ...]; read-only, on the file or on STIGMEM_PG_DSN
  exec       {db, script}                              -> {}; for fixtures only
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import sys
from typing import Any


def bootstrap(given: dict[str, Any]) -> dict[str, Any]:
    from datetime import UTC, datetime, timedelta

    from stigmem_node.auth import register_api_key
    from stigmem_node.db import db, get_node_entity_uri, get_or_create_node_id
    from stigmem_node.federation.peer_token import _get_privkey_obj, get_local_pubkey
    from stigmem_node.identity.manifest import OrgManifest, manifest_to_dict, sign_manifest

    with db() as conn:
        keys = int(conn.execute("SELECT COUNT(*) FROM api_keys").fetchone()[0])
    if keys == 0:
        register_api_key(
            raw_key=given["key"],
            entity_uri=given["entity_uri"],
            permissions=given["permissions"],
        )
    node_id = get_or_create_node_id()
    entity_uri = get_node_entity_uri()
    now = datetime.now(UTC)
    manifest = OrgManifest(
        entity_uri=entity_uri,
        key_id="key-1",
        public_key=get_local_pubkey(),
        issued_at=now.isoformat(),
        expires_at=(now + timedelta(days=365)).isoformat(),
        entities=[entity_uri, node_id, *given["entities"]],
    )
    signed = manifest_to_dict(sign_manifest(manifest, _get_privkey_obj()))
    return {"node_id": node_id, "entity_uri": entity_uri, "manifest": signed}


def declare(given: dict[str, Any]) -> dict[str, Any]:
    from datetime import UTC, datetime

    from stigmem_node.db import get_or_create_node_id
    from stigmem_node.federation.peer_token import _get_privkey_obj, get_local_pubkey

    fields = {
        "allowed_scopes": sorted(given["scopes"]),
        "federation_pubkey": get_local_pubkey(),
        "node_id": get_or_create_node_id(),
        "node_url": given["local_url"],
        "signed_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    message = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    signature = base64.urlsafe_b64encode(_get_privkey_obj().sign(message)).decode().rstrip("=")
    return {**fields, "declaration_sig": signature}


def postgres() -> Any:
    import psycopg2
    import psycopg2.extras

    return psycopg2.connect(os.environ["STIGMEM_PG_DSN"], cursor_factory=psycopg2.extras.RealDictCursor)


ON_POSTGRES = os.environ.get("STIGMEM_STORAGE_BACKEND") == "postgres"


def sql(given: dict[str, Any]) -> list[dict[str, Any]]:
    if ON_POSTGRES:
        with postgres() as conn, conn.cursor() as cursor:
            conn.set_session(readonly=True)
            cursor.execute(given["query"].replace("?", "%s"), given["params"])
            return [dict(row) for row in cursor.fetchall()]
    conn = sqlite3.connect(f"file:{given['db']}?mode=ro", uri=True, timeout=10)
    conn.row_factory = sqlite3.Row
    rows = conn.execute(given["query"], given["params"]).fetchall()
    return [{key: printable(row[key]) for key in row.keys()} for row in rows]


def printable(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def execute(given: dict[str, Any]) -> dict[str, Any]:
    if ON_POSTGRES:
        with postgres() as conn, conn.cursor() as cursor:
            cursor.execute(given["script"])
        return {}
    conn = sqlite3.connect(given["db"], timeout=10)
    conn.executescript(given["script"])
    conn.commit()
    return {}


VERBS = {"bootstrap": bootstrap, "declare": declare, "sql": sql, "exec": execute}

if __name__ == "__main__":
    json.dump(VERBS[sys.argv[1]](json.load(sys.stdin)), sys.stdout)
