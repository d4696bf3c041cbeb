"""Connections to a lock server. docs/reference/protocol.md describes the protocol."""

import socket
from contextlib import suppress
from itertools import count
from ssl import SSLContext
from typing import Any, Final
from weakref import WeakSet

from django_distlock import clocks
from django_distlock.backends.sockets.calls import BLOCKING, IN_LOOP, Calls
from django_distlock.backends.sockets.connections import Connection, Incomplete, ServerError
from django_distlock.backends.sockets.pools import Pool
from django_distlock.backends.sockets.turns import seconds_until
from django_distlock.backends.sync_driver import run_sync
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.server.addresses import Address
from django_distlock.server.protocol import (
    MAX_FRAME,
    VERSION,
    BadFrame,
    decode,
    encode,
    is_proof,
    new_nonce,
    prove,
)

ENDED: Final = {"closing", "connections", "frame", "handshake", "idle", "internal"}
"""The codes of the errors after which the server closes the connection."""

Request = dict[str, Any]


class NotServed(OSError):
    """The server refuses this connection, or is not the one that we share a secret with."""


class UnknownProcess(Exception):
    """The server has no connection on which this process listens."""


class ServerConnection(Connection):
    """A connection on which both sides have proved that they know the secret."""

    __slots__ = ("__weakref__", "_final_error", "idle")

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.outstanding = 1  # the server speaks first
        self.idle = 0.0
        """Seconds after which the server closes it, if nothing is asked."""
        self._final_error: ServerError | None = None

    @staticmethod
    def pack(request: Request) -> bytes:
        """Return the line."""
        return encode(request)

    def _parse(self) -> Any:
        if self._final_error is not None:
            return self._final_error  # the answer to all other requests
        end = self._buffer.find(b"\n", self._at)
        if end < 0:
            raise Incomplete
        line, self._at = self._buffer[self._at : end], end + 1
        try:
            message = decode(line)
        except BadFrame as error:
            raise OSError(f"not a lock server: {error}") from error
        if "error" not in message:
            return message
        said = ServerError(str(message.get("text")), str(message["error"]))
        if said.code in ENDED:
            self._final_error = said
        return said

    def has_ended(self) -> bool:
        """See Connection.has_ended(). The end may come a moment after the final error."""
        return self._final_error is not None or super().has_ended()

    def cut(self) -> None:
        """End it at once, even if another thread waits for an answer on it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class LockServer(Pool[ServerConnection]):
    """A lock server, and this process's connections to it."""

    def __init__(
        self, address: Address, secret: bytes, timeout: float, tls: SSLContext | None
    ) -> None:
        super().__init__(timeout)
        self.address = address
        self.max_frame = MAX_FRAME
        """The server's limit for a request in bytes, as it said last."""
        self._secret = secret
        self._tls = tls
        self.attempts = count(1)
        """The numbers of this process's attempts to acquire."""
        self._listening: WeakSet[ServerConnection] = WeakSet()
        """The connections on which this process has listened."""

    def __str__(self) -> str:
        return f"The lock server at {self.address}"

    def connect(self, seconds: float, process: str | None = None) -> ServerConnection:
        """Return a new connection; with a `process`, the one on which it receives its offers."""
        deadline = clocks.monotonic() + seconds
        connection = ServerConnection(self._encrypt(self._open(seconds), deadline))
        if process is not None:
            self._listening.add(connection)
        try:
            self._shake_hands(connection, deadline, process)
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self, seconds: float) -> socket.socket:
        host, port, path = self.address
        if not path:
            return _connect(host, port, clocks.monotonic() + seconds)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(seconds)
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
        return sock

    def _encrypt(self, sock: socket.socket, deadline: float) -> socket.socket:
        if self._tls is None:
            return sock
        try:
            sock.settimeout(seconds_until(deadline))
            return self._tls.wrap_socket(sock, server_hostname=self.address.host)
        except BaseException:
            sock.close()
            raise

    def _shake_hands(
        self, connection: ServerConnection, deadline: float, process: str | None
    ) -> None:
        """Prove that we know the secret, and check that the server does."""
        connection.set_timeout(seconds_until(deadline))
        greeting = _served(connection.receive())
        challenge, nonce = greeting.get("challenge"), new_nonce()
        if greeting.get("distlock") != VERSION or not isinstance(challenge, str):
            raise NotServed(f"it doesn't support version {VERSION}: {greeting!r:.100}")
        answer = prove(self._secret, "client", challenge, nonce)
        hello = {"distlock": VERSION, "nonce": nonce, "answer": answer, "process": process}
        connection.send([hello])
        connection.set_timeout(seconds_until(deadline))
        terms = _served(connection.receive())
        if not is_proof(terms.get("proof"), self._secret, "server", challenge, nonce):
            raise NotServed("it doesn't know the secret: give both the same one")
        connection.idle, self.max_frame = float(terms["idle"]), int(terms["max_frame"])

    async def ask_for(
        self, calls: Calls, requests: list[Request], deadline: float, undo: Request | None = None
    ) -> list[Any]:
        """Return the answers; a connection that the server closed at that moment is replaced."""
        answers = await calls.ask_all(self, requests, deadline, undo)
        return (
            await calls.ask_all(self, requests, deadline, undo) if _was_idle(answers) else answers
        )

    async def ask_one(
        self, calls: Calls, request: Request, deadline: float, undo: Request | None = None
    ) -> Request:
        """Return the answer to a request.

        If none comes in time, or the task is cancelled, `undo` is sent after it; its answer is
        ignored.
        """
        [answer] = await self.ask_for(calls, [request], deadline, undo)
        return self.understand(answer)

    def ask(self, request: Request, deadline: float, undo: Request | None = None) -> Request:
        """See ask_one()."""
        return run_sync(self.ask_one(BLOCKING, request, deadline, undo))

    async def aask(self, request: Request, deadline: float, undo: Request | None = None) -> Request:
        """See ask_one()."""
        return await self.ask_one(IN_LOOP, request, deadline, undo)

    def ask_several(self, requests: list[Request], deadline: float) -> list[Any]:
        """See ask_for()."""
        return run_sync(self.ask_for(BLOCKING, requests, deadline))

    def understand(self, answer: Any) -> Request:
        """Return the answer; UnknownProcess, ValueError or LockBackendUnavailable for an error."""
        if not isinstance(answer, ServerError):
            found: Request = answer
            return found
        if answer.code == "process":
            raise UnknownProcess
        if answer.code == "invalid":
            raise ValueError(f"{self} refuses this: {answer}") from answer
        raise LockBackendUnavailable(f"{self}: {answer}") from answer

    def close_after_fork(self) -> None:
        """See Pool. The connections on which the parent listens must end with the parent."""
        super().close_after_fork()
        for connection in list(self._listening):
            connection.close()


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    """Return a connection to the first of the host's addresses that accepts one.

    The time is divided among those that are left.
    """
    failure: BaseException = OSError(f"{host} has no address")
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(seconds_until(deadline) / (len(addresses) - number))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except BaseException as error:  # noqa: BLE001 - raised again
            sock.close()
            failure = error
            if not isinstance(error, OSError):
                break
    raise failure


def _served(answer: Any) -> Request:
    if isinstance(answer, ServerError):
        raise NotServed(str(answer)) from answer
    found: Request = answer
    return found


def _was_idle(answers: list[Any]) -> bool:
    """Return whether the server closed the connection before it read the requests."""
    return any(isinstance(each, ServerError) and each.code == "idle" for each in answers)
