"""The least that could do a lock's job: bare calls of each store's client, made ready beforehand.

Nothing here waits, renews, or tells a lost lock from a released one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.db import connections

from benchmarks.contenders import COMPARE_AND_DELETE, TTL, redis_client
from benchmarks.every_store import DATABASES, LOCK_SERVER, MEMCACHED, MEMORY
from benchmarks.pair import make_update

if TYPE_CHECKING:
    from collections.abc import Callable

FREE, HELD = "benchmark-floor", "benchmark-floor-held"


class Floor(NamedTuple):
    """The bare calls of a store."""

    calls: str
    """What they are, for people."""
    pair: Callable[[], object]
    refusal: Callable[[], object]


def floor(store: str) -> Floor:
    """Return the bare calls of a store."""
    if store in DATABASES:
        return database(DATABASES[store])
    if store == MEMCACHED:
        return memcached()
    if store == LOCK_SERVER:
        return lock_server()
    return memory() if store == MEMORY else redis()


def database(alias: str) -> Floor:
    """Create a table, and return two UPDATEs of a row, each with its own commit, and a SELECT."""
    update = make_update(alias)

    def update_twice() -> None:
        update()
        update()

    def select() -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT number FROM benchmark WHERE id = %s", ["benchmark"])
            assert cursor.fetchone()

    return Floor("two UPDATEs; a SELECT", update_twice, select)


def redis() -> Floor:
    """Return SET with NX and PX, and a script that compares and deletes."""
    client = redis_client()
    digest = client.script_load(COMPARE_AND_DELETE)
    client.set(HELD, "another")  # without an end

    def take(key: str) -> bool:
        return bool(client.set(key, "owner", nx=True, px=TTL * 1000))

    def pair() -> None:
        assert take(FREE)
        assert client.evalsha(digest, 1, FREE, "owner") == 1

    def refusal() -> None:
        assert not take(HELD)

    return Floor("SET NX PX, a script; SET NX PX", pair, refusal)


def memcached() -> Floor:
    """Return `add`, then `gets` and `cas` with an expiry in the past."""
    from pymemcache.client.base import Client

    client = Client(settings.CACHES[MEMCACHED]["LOCATION"])
    client.set(HELD, b"another", noreply=False)

    def pair() -> None:
        assert client.add(FREE, b"owner", expire=TTL, noreply=False)
        _, version = client.gets(FREE)
        assert client.cas(FREE, b"owner", version, expire=-1, noreply=False)

    def refusal() -> None:
        assert not client.add(HELD, b"owner", expire=TTL, noreply=False)

    return Floor("add, gets, cas; add", pair, refusal)


def lock_server() -> Floor:
    """Return the two requests of the protocol, on a plain socket."""
    options = settings.DISTLOCK[LOCK_SERVER]["OPTIONS"]
    host, _, port = options["address"].rpartition(":")
    lines = socket.create_connection((host, int(port))).makefile("rwb")
    challenge = json.loads(lines.readline())["challenge"]
    nonce, secret = secrets.token_hex(32), Path(options["secret_file"]).read_bytes().strip()
    text = f"distlock 1 client {challenge} {nonce}".encode()
    answer = hmac.new(secret, text, hashlib.sha256).hexdigest()

    def ask(**request: Any) -> Any:
        lines.write(json.dumps(request).encode() + b"\n")
        lines.flush()
        return json.loads(lines.readline())

    def take(semaphore: str) -> Any:
        return ask(do="acquire", semaphore=semaphore, owner="owner", ttl=TTL, holder="")["token"]

    def pair() -> None:
        assert take(FREE)
        assert ask(do="release", semaphore=FREE, owner="owner")["released"] == 1

    def refusal() -> None:
        assert not take(HELD)

    assert "proof" in ask(distlock=1, nonce=nonce, answer=answer, process=None)
    ask(do="acquire", semaphore=HELD, owner="another", ttl=3600, holder="")
    return Floor("two requests on a socket; one", pair, refusal)


def memory() -> Floor:
    """Return a lock of Python's."""
    free, held = threading.Lock(), threading.Lock()
    held.acquire()

    def pair() -> None:
        with free:
            pass

    return Floor("threading.Lock", pair, lambda: held.acquire(blocking=False))
