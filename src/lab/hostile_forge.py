"""Facts as the attacker wants them, signed as the node would sign them."""

from __future__ import annotations

import base64
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from stigmem_node.cid import compute_cid
from stigmem_node.db import db, get_node_entity_uri, get_or_create_node_id
from stigmem_node.federation.federation_ingest import _encode_v
from stigmem_node.federation.origin_signature import sign_origin
from stigmem_node.federation.peer_token import _get_privkey_obj
from stigmem_node.models.facts import row_to_record

NODE_ID = get_or_create_node_id()
ENTITY_URI = get_node_entity_uri()

book: list[dict[str, Any]] = []  # what a puller gets, in order


def order(hlc: str) -> tuple[int, int]:
    wall, _, counter = hlc.partition(".")
    return int(wall), int(counter or 0)


def next_hlc() -> str:
    now = int(time.time() * 1000)
    if book and order(book[-1]["hlc"]) >= (now, 0):
        wall, counter = order(book[-1]["hlc"])
        return f"{wall}.{counter + 1}"
    return f"{now}.0"


def sealed(fact: dict[str, Any], origin: dict[str, Any]) -> dict[str, Any]:
    """The entry of the wire envelope, signed with the node's own key."""
    signature = sign_origin(
        _get_privkey_obj(),
        fact_id=fact["id"],
        cid=fact["cid"],
        origin=origin,
        valid_until=fact.get("valid_until"),
    )
    return {"fact": fact, "origin": origin, "origin_sig": signature, "origin_manifest": None}


def enter(fact: dict[str, Any], origin: dict[str, Any], place: str, omit: list[str] | None = None) -> None:
    """Puts the fact in the queue; `place` is its cursor, whatever hlc the fact itself claims."""
    wire = sealed(fact, origin)
    for name in omit or []:
        wire["fact"].pop(name, None)
    book.append({"hlc": place, "wire": wire})


def origin_block(scopes: list[str], node_id: str = NODE_ID, tenant: str = "default") -> dict[str, Any]:
    return {
        "tenant": tenant,
        "node_id": node_id,
        "allowed_scopes": scopes,
        "allowed_tenants": [tenant],
        "entity_uri": ENTITY_URI,
    }


def load_honest_facts() -> None:
    """What the real node served stays served, so that cursors go on and a new puller sees one history."""
    with db() as conn:
        rows = conn.execute(
            "SELECT * FROM facts WHERE hlc IS NOT NULL AND received_from IS NULL AND cid IS NOT NULL"
            " AND scope IN ('company', 'public') AND relation NOT LIKE 'stigmem:%'"
            " AND entity NOT LIKE 'stigmem:conflict:%' AND quarantine_garden_id IS NULL"
            " AND (derived_from IS NULL OR derived_from IN ('', '[]'))"
        ).fetchall()
    for row in sorted(rows, key=lambda row: order(row["hlc"])):
        record = row_to_record(row, contradicted=False)
        enter(record.model_dump(), origin_block(record.origin_allowed_scopes or [record.scope]), row["hlc"])


def claimed(confidence: Any) -> float:
    try:
        return float(confidence)
    except (TypeError, ValueError):
        return 1.0


def forge(given: dict[str, Any], place: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A fact as the test wants it, with what it leaves out filled in so that it is believed."""
    value: dict[str, Any] = {"type": given.get("valueType", "text"), "v": given["value"]}
    if "interpretAs" in given:
        value["interpret_as"] = given["interpretAs"]
    scope = given.get("scope", "company")
    fact: dict[str, Any] = {
        "id": given.get("id") or str(uuid.uuid4()),
        "entity": given["entity"],
        "relation": given["relation"],
        "value": value,
        "source": given.get("source", ENTITY_URI),
        "timestamp": given.get("timestamp") or datetime.now(UTC).isoformat(),
        "hlc": given.get("hlc", place),
        "received_from": given.get("receivedFrom"),
        "valid_until": given.get("validUntil"),
        "confidence": given.get("confidence", 0.9),
        "scope": scope,
    }
    fact.update(given.get("wire", {}))
    scope, value = fact["scope"], fact["value"]
    fact["cid"] = given.get("cid") or compute_cid(
        entity=fact["entity"],
        relation=fact["relation"],
        value_type=value["type"],
        value_v=_encode_v(value),
        source=fact["source"],
        scope=scope,
        confidence=claimed(fact["confidence"]),
        interpret_as=value.get("interpret_as", "content"),
    )
    origin = origin_block([scope], given.get("originNodeId", NODE_ID), given.get("originTenant", "default"))
    return fact, origin


def stranger() -> tuple[Ed25519PrivateKey, str]:
    key = Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return key, base64.urlsafe_b64encode(raw).decode().rstrip("=")


STRANGER_KEY, STRANGER_PUB = stranger()
