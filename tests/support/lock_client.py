"""A client of the lock server by sockets alone, written after docs/reference/protocol.md."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
import select
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import pytest

from django_distlock.server.connection import Connection
from django_distlock.server.limits import Limits
from django_distlock.server.locks import EXPIRED
from django_distlock.server.service import Service
from django_distlock.server.table import LockTable
from tests.support.lock_servers import connect_to, locks_by, options_of, secret_of
from tests.support.ports import HOST

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from django_distlock.backends.server import ServerBackend
    from tests.support.servers import Server

ONE, TWO = "1" * 32, "2" * 32
"""Names of processes."""
PATIENCE = 60
"""Seconds after which a test gives up that waits for what the server says."""


@dataclass(frozen=True)
class Endpoint:
    """Where a lock server listens, and its secret."""

    options: dict[str, Any]
    secret: bytes


def endpoint_of(server: Server) -> Endpoint:
    """Return where this server listens."""
    return Endpoint(options_of(server), secret_of(server))


def proof(secret: bytes, side: str, challenge: str, nonce: str) -> str:
    """Return a side's proof that it knows the secret."""
    text = f"distlock 1 {side} {challenge} {nonce}".encode(errors="surrogatepass")
    return hmac.new(secret, text, hashlib.sha256).hexdigest()


def line(message: object) -> bytes:
    """Return the frame."""
    return json.dumps(message).encode() + b"\n"


class LockClient:
    """A connection, unauthenticated until introduce()."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.secret = endpoint.secret
        self._socket = connect_to(endpoint.options)
        self._socket.settimeout(PATIENCE)
        self._unread = b""
        self.offers: list[int] = []
        """What was offered while something else was waited for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def fileno(self) -> int:
        """Return the descriptor, for selectors."""
        return self._socket.fileno()

    def has_something(self) -> bool:
        """Return whether data or the end has arrived."""
        return bool(self._unread or select.select([self], [], [], 0)[0])

    def read(self) -> dict[str, Any] | None:
        """Return the next message; None if the server has closed the connection in order."""
        while b"\n" not in self._unread:
            received = self._socket.recv(65536)
            if not received:
                assert not self._unread
                return None
            self._unread += received
        message, _, self._unread = self._unread.partition(b"\n")
        found: dict[str, Any] = json.loads(message, parse_constant=pytest.fail)
        return found

    def message(self) -> dict[str, Any]:
        """Return the next message, which must come."""
        found = self.read()
        assert found is not None
        return found

    def answer(self) -> dict[str, Any]:
        """Return the next message that is no offer."""
        while "offer" in (found := self.message()):
            self.offers.append(found["offer"])
        return found

    def last_word(self) -> str:
        """Return the code of the error that comes next, after which the connection ends."""
        error = self.message()
        assert set(error) == {"error", "text"}
        assert self.read() is None
        return str(error["error"])

    def last_word_after(self, data: bytes) -> str:
        """See last_word(); answers to pings may come before it."""
        self.send(data)
        while "error" not in (found := self.message()):
            assert found == {}
        assert self.read() is None
        return str(found["error"])

    def hello(self, challenge: str, **changes: Any) -> dict[str, Any]:
        """Return a valid hello, with these changes."""
        nonce = secrets.token_hex(32)
        answer = proof(self.secret, "client", challenge, nonce)
        return {"distlock": 1, "nonce": nonce, "answer": answer, "process": None} | changes

    def introduce(self, process: str | None = None) -> dict[str, Any]:
        """Do the handshake; return the server's terms."""
        challenge = self.message()["challenge"]
        hello = self.hello(challenge, process=process)
        self.send(line(hello))
        terms = self.message()
        assert terms.pop("proof") == proof(self.secret, "server", challenge, hello["nonce"])
        return terms

    def ask(self, do: str, **members: Any) -> dict[str, Any]:
        """Return the answer to a request."""
        self.send(line({"do": do, **members}))
        return self.answer()

    def acquire(self, semaphore: str, owner: str = "me", ttl: float = 60, **members: Any) -> int:
        """Return the token; 0 if another owner holds the lock."""
        answer = self.ask("acquire", semaphore=semaphore, owner=owner, ttl=ttl, **members)
        return int(answer["token"] or 0)

    def release(self, semaphore: str, owner: str = "me", **members: Any) -> int:
        """Return the outcome."""
        answer = self.ask("release", semaphore=semaphore, owner=owner, **members)
        return int(answer["released"])

    def renew(self, *leases: list[Any], **members: Any) -> list[bool]:
        """Return which are still held."""
        answer = self.ask("renew", leases=leases, **members)
        return [end is not None and type(end) is not dict for end in answer["expires_at"]]

    def is_served(self) -> bool:
        """Return whether it can acquire and release a lock."""
        semaphore = secrets.token_hex(8)
        return bool(self.acquire(semaphore, ttl=5)) and bool(self.release(semaphore))


def friend(endpoint: Endpoint, process: str | None = None) -> LockClient:
    """Return an authenticated client."""
    client = LockClient(endpoint)
    client.introduce(process)
    return client


class Clock:
    """A clock that only moves when a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class StoppedLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers are due when a test advances its time."""

    now: float | None = 1000.0
    """None: time goes on as usual."""

    def time(self) -> float:
        return super().time() if self.now is None else self.now


class Serving:
    """A service in a thread of this process, with stopped time for leases and timers."""

    def __init__(
        self, *, grace: float = 0, tls: ssl.SSLContext | None = None, **options: Any
    ) -> None:
        limits = Limits(**options)
        self.clock = Clock()
        table = LockTable(
            monotonic=self.clock.monotonic,
            grants_from=self.clock.now + grace if grace else EXPIRED,
            max_locks=limits.max_locks,
            max_waiters=limits.max_waiters,
            max_all_waiters=limits.max_all_waiters,
        )
        self.service = Service(table, secrets.token_bytes(32), limits, tls)
        self.loop = StoppedLoop()
        self.endpoint: Endpoint
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await self.loop.create_server(partial(Connection, self.service), HOST, 0)
        port = server.sockets[0].getsockname()[1]
        self.endpoint = Endpoint({"address": f"{HOST}:{port}"}, self.service.secret)
        self._ready.set()
        await self._stop.wait()
        self.loop.now = None
        server.close()
        self.service.stop()
        await self.service.admission.wait_closed()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *exception: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def locks(self) -> AbstractContextManager[ServerBackend]:
        """Use this server for the lock backend ALIAS."""
        return locks_by({**self.endpoint.options, "secret": self.endpoint.secret})

    def call(self, function: Callable[[], object]) -> None:
        """Call this in the service's thread, and wait until it has returned."""
        done = threading.Event()
        self.loop.call_soon_threadsafe(function)
        self.loop.call_soon_threadsafe(done.set)
        assert done.wait(PATIENCE)

    def let_wait(self, seconds: float) -> None:
        """Advance the time of the connections' timers."""

        def wait() -> None:
            assert self.loop.now is not None
            self.loop.now += seconds

        # Timers that are due run in the loop's next round, or before the one after that.
        for step in (wait, lambda: None, lambda: None):
            self.call(step)

    def let_pass(self, seconds: float) -> None:
        """Advance the time of leases."""

        def pass_on() -> None:
            self.clock.now += seconds
            self.service.run_due()

        self.call(pass_on)
