"""A Stigmem peer that has turned: the node's identity and wire protocol, the attacker's facts.

Runs in the node's Python with the stopped node's STIGMEM_ environment, so keys, node_id, manifest
and peers come from its own database, and facts, tokens and signatures from its own code.
    hostile_peer.py PORT CONTROL_PORT
PORT answers what peers ask; CONTROL_PORT takes the test's orders under /control.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from hostile_forge import NODE_ID, STRANGER_KEY, STRANGER_PUB, book, enter, forge, order, sealed
from hostile_forge import load_honest_facts, next_hlc
from stigmem_node.federation.peer_token import create_peer_token
from stigmem_node.identity.manifest import manifest_from_dict, manifest_to_dict, sign_manifest
from stigmem_node.routes.wellknown import node_manifest, node_metadata

PORT, CONTROL_PORT = int(sys.argv[1]), int(sys.argv[2])
ALL_SCOPES = ["company", "local", "public", "team"]

app = FastAPI()
pulls: list[dict[str, Any]] = []  # who asked, with which cursor, and how much they got
well_known = {"mode": "normal"}


# ---- what peers ask ---------------------------------------------------------------------------


@app.get("/healthz")
def healthz() -> dict[str, str]:
    return {"status": "ok"}


async def endless(piece: bytes, pause_s: float, pieces: int) -> AsyncIterator[bytes]:
    for _ in range(pieces):
        yield piece
        await asyncio.sleep(pause_s)


def advertised(real: dict[str, Any], other: dict[str, Any]) -> Response:
    mode = well_known["mode"]
    if mode == "huge":
        return StreamingResponse(endless(b" " * 1_048_576, 0, 1_024), media_type="application/json")
    if mode == "slow":
        return StreamingResponse(endless(b" ", 1, 600), media_type="application/json")
    if mode == "garbage":
        return Response(b'{"node_id": "\xff\xfe<html>', media_type="application/json")
    return JSONResponse(other if mode == "otherNode" else real)


@app.get("/.well-known/stigmem")
def metadata() -> Response:
    real = node_metadata()
    other = {**real, "node_id": f"stigmem:node:{uuid.UUID(int=7)}", "federation_pubkey": STRANGER_PUB}
    return advertised(real, other)


@app.get("/.well-known/stigmem-manifest.json")
def manifest() -> Response:
    real = node_manifest()
    foreign = manifest_from_dict({**real, "key_id": "key-2", "public_key": STRANGER_PUB, "signature": ""})
    return advertised(real, manifest_to_dict(sign_manifest(foreign, STRANGER_KEY)))


@app.get("/v1/federation/facts")
def facts(request: Request, cursor: str | None = None, limit: int = 100) -> dict[str, Any]:
    entries = [e for e in book if cursor is None or order(e["hlc"]) > order(cursor)]
    page = entries[:limit]
    last = page[-1]["hlc"] if page else cursor
    pulls.append({"nodeId": issuer(request), "cursor": cursor, "returned": len(page), "at": time.time()})
    return {"v": 2, "facts": [e["wire"] for e in page], "cursor": last, "has_more": len(entries) > limit}


@app.get("/v1/federation/tombstones")
def tombstones() -> dict[str, Any]:
    return {"v": 2, "tombstones": [], "revocations": [], "cursor": None}


def issuer(request: Request) -> str | None:
    token = request.headers.get("authorization", "")[7:]
    try:
        options = {"verify_signature": False, "verify_exp": False, "verify_iat": False}
        return str(jwt.decode(token, options=options, algorithms=["EdDSA"])["iss"])
    except (jwt.exceptions.PyJWTError, KeyError):
        return None


# ---- what the test orders ---------------------------------------------------------------------


async def orders(request: Request) -> dict[str, Any]:
    if request.scope["server"][1] != CONTROL_PORT:
        raise HTTPException(status_code=404)
    return dict(await request.json())


@app.post("/control/deliver")
async def deliver(request: Request) -> dict[str, Any]:
    ids = []
    for given in (await orders(request))["facts"]:
        place = next_hlc()
        fact, origin = forge(given, place)
        ids.append(fact["id"])
        enter(fact, origin, place, given.get("omit"))
    return {"ids": ids}


@app.post("/control/withdraw")
async def withdraw(request: Request) -> dict[str, Any]:
    ids = set((await orders(request))["ids"])
    before = len(book)
    book[:] = [entry for entry in book if entry["wire"]["fact"].get("id") not in ids]
    return {"withdrawn": before - len(book)}


@app.post("/control/well-known")
async def set_well_known(request: Request) -> dict[str, Any]:
    well_known["mode"] = (await orders(request))["mode"]
    return dict(well_known)


@app.post("/control/pulls")
async def report(request: Request) -> dict[str, Any]:
    await orders(request)
    def waiting(cursor: str | None) -> int:
        return sum(1 for entry in book if cursor is None or order(entry["hlc"]) > order(cursor))

    return {"pulls": [{**seen, "waiting": waiting(seen["cursor"])} for seen in pulls[-200:]]}


@app.post("/control/pull")
async def pull(request: Request) -> dict[str, Any]:
    """One peer token, used `times` times; the second use is a replay."""
    given = await orders(request)
    token = create_peer_token(given["nodeId"], ALL_SCOPES)
    params = {name: given[name] for name in ("scope", "cursor", "limit") if name in given}
    answers = []
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        for _ in range(given.get("times", 1)):
            answers.append(
                await client.get(
                    f"{given['url']}/v1/federation/facts",
                    params=params,
                    headers={"Authorization": f"Bearer {token}"},
                )
            )
    return {"answers": [{"status": a.status_code, "body": body(a)} for a in answers]}


@app.post("/control/push")
async def push(request: Request) -> dict[str, Any]:
    given = await orders(request)
    entries = [sealed(*forge({"source": NODE_ID, **wanted}, next_hlc())) for wanted in given["facts"]]
    token = create_peer_token(given["nodeId"], ALL_SCOPES)
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        answer = await client.post(
            f"{given['url']}/v1/federation/facts/push",
            json={"v": 2, "facts": entries},
            headers={"Authorization": f"Bearer {token}"},
        )
    ids = [entry["fact"]["id"] for entry in entries]
    return {"status": answer.status_code, "body": body(answer), "ids": ids}


def body(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except json.JSONDecodeError:
        return answer.text


def listener(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(128)
    return sock


if __name__ == "__main__":
    load_honest_facts()
    config = uvicorn.Config(app, log_level="info", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener(PORT), listener(CONTROL_PORT)])
