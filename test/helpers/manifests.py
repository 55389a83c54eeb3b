"""Manifests, good and bad, by seed, and what a Stigmem node's own code decides on each.

Runs in the node's Python with STIGMEM_DB_PATH in a folder of its own. {seed, count} on stdin; on stdout one JSON line a case:
  {name, manifest, stored: {publicKey, keyId, entityUri, nodeId}, strict, now, node}
`stored` is what the node has of the peer; `node` is one of
  stored       it stored the manifest and gives it out again
  expired      it stored it and does not give it out again
  chain …      ManifestError of the chain, with its words
  verify …     any other refusal
"""

from __future__ import annotations

import base64
import json
import random
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import canonicaljson
import stigmem_node.db as node_db
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stigmem_node.identity.key_rotation import generate_key_id
from stigmem_node.identity.manifest import manifest_from_dict, manifest_to_dict, sign_manifest
from stigmem_node.identity.trust_store import get_peer_manifest, store_peer_manifest

NOW = datetime.now(UTC)
Doc = dict[str, Any]


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def iso(at: datetime) -> str:
    return at.isoformat()


class Key:
    def __init__(self, rng: random.Random) -> None:
        self.private = Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))
        self.text = b64(self.private.public_key().public_bytes_raw())
        self.id = generate_key_id(self.private.public_key())

    def sign(self, body: Any) -> str:
        return b64(self.private.sign(canonicaljson.encode_canonical_json(body)))


EVENT_BODY = ("new_key_id", "new_public_key", "previous_key_id", "rotated_at")
SIGNED = ("entities", "entity_uri", "expires_at", "issued_at", "key_id", "public_key", "rotation_events")


class Case:
    """A good manifest with its chain of keys; a mutation changes it, before or after it is signed."""

    def __init__(self, rng: random.Random, events: int, pinned: int) -> None:
        self.rng = rng
        self.keys = [Key(rng) for _ in range(events + 1)]
        self.pinned = self.keys[pinned]
        self.signer = self.keys[-1]
        self.strict = rng.random() < 0.3
        self.entity = f"stigmem://{rng.choice(['peer', 'péér', '同僚', 'a' * 60])}-{rng.randrange(10**9)}.test"
        self.node_id = f"stigmem:node:{rng.randrange(10**12)}"
        issued = NOW - timedelta(minutes=rng.randrange(1, 10_000), microseconds=rng.randrange(10**6))
        self.doc: Doc = {
            "entity_uri": self.entity,
            "key_id": self.signer.id,
            "public_key": self.signer.text,
            "issued_at": iso(issued),
            "expires_at": iso(issued + timedelta(days=rng.choice([30, 300, 365]))),
            "entities": [self.entity, self.node_id],
            "rotation_events": [self.event(i) for i in range(events)],
            "signature": "",
        }
        self.post: Callable[[], None] | None = None

    def event(self, i: int) -> Doc:
        old, new = self.keys[i], self.keys[i + 1]
        event = {
            "previous_key_id": old.id,
            "new_key_id": new.id,
            "new_public_key": new.text,
            "rotated_at": iso(NOW - timedelta(days=len(self.keys) - i)),
        }
        event["signature"] = old.sign(event)
        if self.rng.random() < 0.7:
            event["previous_public_key"] = old.text
        return event

    def resign_event(self, i: int, key: Key | None = None) -> None:
        event = self.doc["rotation_events"][i]
        event["signature"] = (key or self.keys[i]).sign({name: event[name] for name in EVENT_BODY})

    def sign(self) -> None:
        """As the node signs it; what its own code can't take is signed field by field."""
        try:
            signed = sign_manifest(manifest_from_dict(self.doc), self.signer.private)
            self.doc["signature"] = signed.signature
        except Exception:
            try:
                self.doc["signature"] = self.signer.sign({k: self.doc.get(k) for k in SIGNED})
            except Exception:
                self.doc["signature"] = b64(self.rng.randbytes(64))


def some_event(case: Case) -> int:
    return case.rng.randrange(len(case.doc["rotation_events"]))


TIMES: list[Callable[[datetime], str]] = [
    lambda t: t.strftime("%Y-%m-%dT%H:%M:%SZ"),
    lambda t: t.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    lambda t: t.strftime("%Y-%m-%dT%H:%M:%S.%f123Z"),
    lambda t: t.strftime("%Y-%m-%dT%H:%MZ"),
    lambda t: t.strftime("%Y-%m-%dT%H:%M:%S+05:30"),
    lambda t: t.strftime("%Y-%m-%dT%H:%M:%S-0800"),
    lambda t: t.strftime("%Y-%m-%dT%H:%M:%S"),
    lambda t: t.strftime("%Y-%m-%d"),
    lambda t: t.strftime("%Y%m%dT%H%M%SZ"),
    lambda t: t.strftime("%Y-%m-%d %H:%M:%S+00:00"),
    lambda t: t.strftime("%G-W%V-%uT%H:%M:%SZ"),
    lambda t: t.strftime("%Y-%m-%dT%H:%M:%S,5Z"),
    lambda t: t.strftime("%Y-%m-%dt%H:%M:%Sz"),
    lambda t: t.strftime("%Y-%m-30T24:00:00Z"),
    lambda t: t.strftime("%Y-02-30T%H:%M:%SZ"),
    lambda t: t.strftime("%Y-%m-%dT%H:%M:60Z"),
    lambda t: t.strftime("%Y-%m-%dT%H:%M:%S+00:00:30"),
    lambda t: t.strftime("%s"),
    lambda t: t.strftime("0000-%m-%dT%H:%M:%SZ"),
    lambda t: t.strftime("9999-%m-%dT%H:%M:%SZ"),
    lambda t: "",
]

# What JSON can hold that is no plain text, and texts that two languages may write in two ways.
ODD: list[Any] = [None, True, 0, 1, -1, 1.0, 1e21, 0.1, 10**20, [], {}, [[]], {"a": "b"}]
TEXTS = ["", " ", "é", "e\u0301", "\u2028\u2029", "\x00\x1f\x7f\x80", '"\\/\b\f\n\r\t', "😀", "\ufeff", "\ud800", "\udc00x", "\uffff", "<&>'", "a" * 3_000]


def lenient(case: Case, text: str, length: int) -> str:
    """Other texts of the same bytes, and texts of none, as Python's base64 takes them or not."""
    way = case.rng.randrange(9)
    if way == 0:
        return text + "=" * (-len(text) % 4)
    if way == 1:
        return text.replace("-", "+").replace("_", "/")
    if way == 2:
        return text[:5] + "\n" + text[5:]
    if way == 3:
        return text[:5] + "!*" + text[5:]
    if way == 4:  # bits behind the last byte that nobody reads
        last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        return text[:-1] + last[last.index(text[-1]) ^ 1]
    if way == 5:
        return text[:-4]
    if way == 6:
        return text + "AAAA"
    if way == 7:
        return b64(case.rng.randbytes(length))
    return case.rng.choice(["", "=", "é" * 43, " " + text])


def gap(case: Case) -> None:
    del case.doc["rotation_events"][some_event(case)]


def twice(case: Case) -> None:
    i = some_event(case)
    case.doc["rotation_events"].insert(i, dict(case.doc["rotation_events"][i]))


def swapped(case: Case) -> None:
    case.rng.shuffle(case.doc["rotation_events"])


def reused_id(case: Case) -> None:
    events = case.doc["rotation_events"]
    i = some_event(case)
    events[i]["new_key_id"] = case.rng.choice([case.pinned.id, *(e["new_key_id"] for e in events[:i]), events[0]["previous_key_id"]])
    case.resign_event(i)
    if i + 1 < len(events):
        events[i + 1]["previous_key_id"] = events[i]["new_key_id"]
        case.resign_event(i + 1)
    else:
        case.doc["key_id"] = events[i]["new_key_id"]


def reused_key(case: Case) -> None:
    """A key that was there before, under an id of its own."""
    events = case.doc["rotation_events"]
    i = len(events) - 1
    old = case.keys[case.rng.randrange(len(events))]
    events[i]["new_public_key"] = case.doc["public_key"] = old.text
    case.resign_event(i)
    case.signer = old


def wrong_signer(case: Case) -> None:
    case.resign_event(some_event(case), Key(case.rng))


def event_signature(case: Case) -> None:
    event = case.doc["rotation_events"][some_event(case)]
    event["signature"] = lenient(case, event["signature"], 64)


def event_key(case: Case) -> None:
    event = case.doc["rotation_events"][some_event(case)]
    event["new_public_key"] = lenient(case, event["new_public_key"], 32)


def event_field(case: Case) -> None:
    event = case.doc["rotation_events"][some_event(case)]
    name = case.rng.choice(list(event))
    if case.rng.random() < 0.2:
        del event[name]
    else:
        event[name] = case.rng.choice([*ODD, *TEXTS, event[name] + "x"])


def event_signed_field(case: Case) -> None:
    i = some_event(case)
    case.doc["rotation_events"][i][case.rng.choice(EVENT_BODY)] = case.rng.choice([*ODD, *TEXTS])
    try:
        case.resign_event(i)
    except Exception:
        pass


def event_time(case: Case) -> None:
    i = some_event(case)
    case.doc["rotation_events"][i]["rotated_at"] = case.rng.choice(TIMES)(NOW - timedelta(days=3))
    case.resign_event(i)


def event_to_come(case: Case) -> None:
    i = some_event(case)
    case.doc["rotation_events"][i]["rotated_at"] = iso(NOW + timedelta(days=case.rng.choice([1, 400])))
    case.resign_event(i)


def previous_key(case: Case) -> None:
    case.doc["rotation_events"][some_event(case)]["previous_public_key"] = case.rng.choice(["", None, Key(case.rng).text, "x", 5])


def other_end(case: Case) -> None:
    if case.rng.random() < 0.5:
        case.doc["key_id"] = "other"
    else:
        case.signer = Key(case.rng)
        case.doc["public_key"] = case.signer.text


def no_chain(case: Case) -> None:
    case.doc["rotation_events"] = []


def kept_id(case: Case) -> None:
    case.doc["rotation_events"] = []
    case.doc["key_id"] = case.pinned.id
    case.signer = Key(case.rng)
    case.doc["public_key"] = case.signer.text


def other_chain(case: Case) -> None:
    case.pinned = Key(case.rng)


def same_key(case: Case) -> None:
    case.pinned = case.signer


def odd_events(case: Case) -> None:
    case.doc["rotation_events"] = case.rng.choice([None, {}, "", "x", {"a": 1}, [1], [[]], [None], 7])


def validity(case: Case) -> None:
    limit = 365 if case.strict else 730
    issued = NOW - timedelta(days=case.rng.choice([1, 29, 364]), microseconds=case.rng.randrange(10**6))
    span = case.rng.choice(
        [timedelta(days=limit), timedelta(days=365), timedelta(days=730), timedelta(0), timedelta(days=-1), timedelta(days=30)]
    ) + case.rng.choice([timedelta(0), timedelta(microseconds=1), timedelta(microseconds=-1), timedelta(seconds=1)])
    case.doc["issued_at"], case.doc["expires_at"] = iso(issued), iso(issued + span)


def issued_to_come(case: Case) -> None:
    at = NOW + timedelta(days=2)
    case.doc["issued_at"], case.doc["expires_at"] = iso(at), iso(at + timedelta(days=90))


def odd_time(case: Case) -> None:
    issued = NOW - timedelta(days=30)
    case.doc["issued_at"] = case.rng.choice(TIMES)(issued)
    case.doc["expires_at"] = case.rng.choice(TIMES)(issued + timedelta(days=300))


def entities(case: Case) -> None:
    way = case.rng.randrange(5)
    if way == 0:
        del case.doc["entities"]
    elif way == 1:
        case.doc["entities"] = case.rng.choice([*ODD, "x"])
    elif way == 2:
        case.doc["entities"].append(case.rng.choice(ODD))
    elif way == 3:
        case.doc["entities"].append(case.rng.choice(TEXTS))
    else:
        case.doc["entities"] += [f"e{i}" for i in range(case.rng.choice([10, 254, 255, 400]))]


def odd_field(case: Case) -> None:
    name = case.rng.choice(["entity_uri", "key_id", "issued_at", "expires_at", "public_key"])
    case.doc[name] = case.rng.choice([*ODD, *TEXTS])


def own_key(case: Case) -> None:
    case.doc["public_key"] = lenient(case, case.doc["public_key"], 32)


def more_fields(case: Case) -> None:
    case.doc["extra"] = case.rng.choice([*ODD, *TEXTS])
    if case.doc["rotation_events"]:
        case.doc["rotation_events"][some_event(case)]["extra"] = case.rng.choice(ODD)


def after(change: Callable[[Case], None]) -> Callable[[Case], None]:
    def mutate(case: Case) -> None:
        case.post = lambda: change(case)

    mutate.__name__ = f"after signing: {change.__name__}"
    return mutate


def signature(case: Case) -> None:
    case.doc["signature"] = lenient(case, case.doc["signature"], 64)


def flipped(case: Case) -> None:
    raw = bytearray(base64.urlsafe_b64decode(case.doc["signature"] + "=="))
    raw[case.rng.randrange(64)] ^= 1 << case.rng.randrange(8)
    case.doc["signature"] = b64(bytes(raw))


def missing_field(case: Case) -> None:
    del case.doc[case.rng.choice(list(case.doc))]


def other_field(case: Case) -> None:
    name = case.rng.choice(["entity_uri", "key_id", "issued_at", "expires_at", "public_key", "signature"])
    case.doc[name] = case.rng.choice([*ODD, *TEXTS, case.doc[name] + "x", Key(case.rng).text])


def other_entities(case: Case) -> None:
    case.doc["entities"] = case.rng.choice([[], [case.entity], [*case.doc["entities"], "x"], list(reversed(case.doc["entities"]))])


def good(_case: Case) -> None:
    pass


ANY = [
    good, no_chain, kept_id, other_chain, same_key, odd_events, validity, validity, validity, issued_to_come, odd_time, odd_time, entities,
    entities, odd_field, own_key, more_fields, other_end, after(signature), after(flipped), after(missing_field), after(other_field),
    after(other_entities),
]  # fmt: skip
WITH_EVENTS = [
    good, gap, twice, swapped, reused_id, reused_key, wrong_signer, event_signature, event_key, event_field, event_signed_field, event_time,
    event_to_come, previous_key, after(gap), after(twice), after(event_field),
]  # fmt: skip


def make(rng: random.Random, at: int) -> tuple[str, Case]:
    long = {0: 99, 1: 100, 2: 101, 3: 130, 4: 300}.get(at % 250)
    events = rng.choice([0, 1, 1, 2, 2, 3, 5]) if long is None else long
    case = Case(rng, events, rng.randrange(events + 1) if events else 0)
    mutate = rng.choice([*ANY, *WITH_EVENTS, *WITH_EVENTS] if events else ANY) if long is None else good
    name = mutate.__name__ if long is None else f"{events} events"
    mutate(case)
    case.sign()
    if case.post is not None:
        case.post()
    return name, case


def decide(case: Case, manifest: Any) -> str:
    """What the node itself says to it, with the pinned key's manifest stored."""
    now = iso(NOW)
    before = {
        "entity_uri": case.entity, "key_id": case.pinned.id, "public_key": case.pinned.text, "issued_at": now,
        "expires_at": iso(NOW + timedelta(days=9)), "entities": [case.entity],
    }  # fmt: skip
    stored = json.dumps(manifest_to_dict(sign_manifest(manifest_from_dict(before), case.pinned.private)))
    with node_db.db() as conn:
        conn.execute("DELETE FROM federation_manifests")
        conn.execute(
            "INSERT INTO federation_manifests (id, entity_uri, manifest_json, signature, key_id, issued_at, expires_at, created_at, updated_at)"
            " VALUES ('1',?,?,'',?,?,?,?,?)",
            (case.entity, stored, case.pinned.id, now, before["expires_at"], now, now),
        )
    mode = "strict" if case.strict else "relaxed"
    try:
        store_peer_manifest(case.entity, manifest_from_dict(manifest), trust_mode=mode)
        return "stored" if get_peer_manifest(case.entity, refresh_if_expired=False, trust_mode=mode) else "expired"
    except Exception as error:
        words = f"{type(error).__name__}: {error}"[:300].encode("ascii", "backslashreplace").decode()
        return f"chain {words}" if "manifest update rejected" in words else f"verify {words}"


def one_connection() -> None:
    """The node opens its database for each question, which is most of the time here; what it asks and decides stays its own."""
    conn = sqlite3.connect(node_db.settings.db_path)
    conn.row_factory = sqlite3.Row
    conn.execute("PRAGMA synchronous=OFF")

    @contextmanager
    def db() -> Iterator[sqlite3.Connection]:
        with conn:
            yield conn

    node_db.db = db


def main() -> None:
    given = json.load(sys.stdin)
    node_db.apply_migrations()
    one_connection()
    for at in range(given["count"]):
        rng = random.Random(f"{given['seed']}:{at}")
        name, case = make(rng, at)
        text = json.dumps(case.doc)
        stored = {"publicKey": case.pinned.text, "keyId": case.pinned.id, "entityUri": case.entity, "nodeId": case.node_id}
        head = {"name": name, "stored": stored, "strict": case.strict, "now": iso(NOW), "node": decide(case, json.loads(text))}
        print(json.dumps(head)[:-1] + f', "manifest": {text}' + "}")


if __name__ == "__main__":
    main()
