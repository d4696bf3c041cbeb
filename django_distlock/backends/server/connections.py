"""Connections to a lock server: what is said on them is in docs/protocol.md."""

import socket
from contextlib import suppress
from ssl import SSLContext
from typing import Any, Final
from weakref import WeakSet

from django_distlock import clocks
from django_distlock.backends.sockets.pools import Pool, seconds_until
from django_distlock.backends.sockets.wires import Incomplete, ServerError, Wire
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
"""What a server says of a connection that it closes."""

Request = dict[str, Any]


class NotServed(OSError):
    """The server turns this connection away, or isn't ours."""


class UnknownProcess(Exception):
    """The server doesn't know of a connection on which this process listens."""


class ServerWire(Wire):
    """A connection on which both sides have proved to know the secret."""

    __slots__ = ("__weakref__", "_last_words", "idle")

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.outstanding = 1  # the server speaks first
        self.idle = 0.0
        """Seconds after which the server closes it, if nothing is asked."""
        self._last_words: ServerError | None = None

    @staticmethod
    def pack(request: Request) -> bytes:
        """Return the line."""
        return encode(request)

    def _parse(self) -> Any:
        if self._last_words is not None:
            return self._last_words  # that is the answer to whatever else was asked
        end = self._buffer.find(b"\n", self._at)
        if end < 0:
            raise Incomplete
        line, self._at = self._buffer[self._at : end], end + 1
        try:
            message = decode(line)
        except BadFrame as error:
            raise OSError(f"that is no lock server: {error}") from error
        if "error" not in message:
            return message
        said = ServerError(str(message.get("text")), str(message["error"]))
        if said.code in ENDED:
            self._last_words = said
        return said

    def has_ended(self) -> bool:
        """See Wire.has_ended(). The end may come a moment after the last words."""
        return self._last_words is not None or super().has_ended()

    def cut(self) -> None:
        """End it at once, whoever is waiting for an answer in another thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class LockServer(Pool[ServerWire]):
    """A lock server, with this process's connections to it."""

    def __init__(
        self, address: Address, secret: bytes, timeout: float, tls: SSLContext | None
    ) -> None:
        super().__init__(timeout)
        self.address = address
        self.max_frame = MAX_FRAME
        """Bytes that the server takes in one request, as it said last."""
        self._secret = secret
        self._tls = tls
        self._listening: WeakSet[ServerWire] = WeakSet()
        """The connections by which the server knows this process."""

    def __str__(self) -> str:
        return f"The lock server at {self.address}"

    def connect(self, seconds: float, process: str | None = None) -> ServerWire:
        """Return a new connection; one on which this `process` is told when its turn has come."""
        deadline = clocks.monotonic() + seconds
        wire = ServerWire(self._encrypt(self._open(seconds), deadline))
        if process is not None:
            self._listening.add(wire)
        try:
            self._shake_hands(wire, deadline, process)
        except BaseException:
            wire.close()
            raise
        return wire

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

    def _shake_hands(self, wire: ServerWire, deadline: float, process: str | None) -> None:
        """Prove to know the secret, and see that the server does."""
        wire.limit(seconds_until(deadline))
        greeting = _served(wire.receive())
        challenge, nonce = greeting.get("challenge"), new_nonce()
        if greeting.get("distlock") != VERSION or not isinstance(challenge, str):
            raise NotServed(f"it doesn't speak version {VERSION}: {greeting!r:.100}")
        answer = prove(self._secret, "client", challenge, nonce)
        hello = {"distlock": VERSION, "nonce": nonce, "answer": answer, "process": process}
        wire.send([hello])
        wire.limit(seconds_until(deadline))
        terms = _served(wire.receive())
        if not is_proof(terms.get("proof"), self._secret, "server", challenge, nonce):
            raise NotServed("it doesn't know the secret: it may be another's")
        wire.idle, self.max_frame = float(terms["idle"]), int(terms["max_frame"])

    def ask(self, request: Request, deadline: float, undo: Request | None = None) -> Request:
        """Return the answer to one request.

        If none comes in time, `undo` is sent after it, whose answer nobody waits for.
        """
        [answer] = self.ask_several([request], deadline, undo)
        return self.understand(answer)

    async def aask(self, request: Request, deadline: float, undo: Request | None = None) -> Request:
        """See ask(). `undo` is also sent if the task is cancelled."""
        [answer] = await self.aask_several([request], deadline, undo)
        return self.understand(answer)

    def ask_several(
        self, requests: list[Request], deadline: float, undo: Request | None = None
    ) -> list[Any]:
        """Return the answers; a connection that the server closed at that moment is replaced."""
        answers = self.ask_all(requests, deadline, undo)
        return self.ask_all(requests, deadline, undo) if _was_idle(answers) else answers

    async def aask_several(
        self, requests: list[Request], deadline: float, undo: Request | None = None
    ) -> list[Any]:
        """See ask_several()."""
        answers = await self.aask_all(requests, deadline, undo)
        return await self.aask_all(requests, deadline, undo) if _was_idle(answers) else answers

    def understand(self, answer: Any) -> Request:
        """Return the answer, or raise what it means if it is an error."""
        if not isinstance(answer, ServerError):
            found: Request = answer
            return found
        if answer.code == "process":
            raise UnknownProcess
        if answer.code == "invalid":
            raise ValueError(f"{self} refuses this: {answer}") from answer
        raise LockBackendUnavailable(f"{self}: {answer}") from answer

    def forget(self) -> None:
        """See Pool.forget(). Those by which the server knows the parent must end with it."""
        super().forget()
        for wire in list(self._listening):
            wire.close()


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    """Return a connection to the first of the host's addresses that takes it.

    One that is silent leaves the others their part of the time.
    """
    failure: BaseException = OSError(f"{host} has no address")
    places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, place) in enumerate(places):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(seconds_until(deadline) / (len(places) - number))
            sock.connect(place)
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
    """Tell whether the server closed the connection before it saw the requests."""
    return any(isinstance(each, ServerError) and each.code == "idle" for each in answers)
