"""The lock server: connections, who is behind them, and what nobody may overdo.

One thread, one event loop: requests are served one at a time, in the order in which they came.
"""

import asyncio
import logging
import math
import time
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import islice
from ssl import SSLContext, SSLError
from typing import TYPE_CHECKING, Any, Final, cast

from .protocol import MAX_FRAME, VERSION, BadFrame, decode, encode, is_proof, new_nonce, prove
from .requests import PROCESS, Answer, Invalid, Listings, Request, UnknownProcess, answer
from .table import LockTable, Party, Refused
from .throttled import ThrottledLog

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("django_distlock.server")

MOST: Final = 100_000_000
"""What a limit is at most: three years, of seconds."""
UNREAD: Final = 16 * 1024 * 1024
"""Bytes of answers that a client may leave unread: more than the longest page of locks has."""
TURN: Final = 0.01
"""Seconds, about, for which a client is answered while others wait."""
STOPS: Final = "The server stops; it may be back soon."
FAREWELL: Final = 1.0
"""Seconds in which connections are closed in order."""
SPARED: Final = 10
"""Strangers whose connections are closed at a time when the system has no room for more."""


@dataclass(frozen=True)
class Limits:
    """What nobody may go beyond; times in seconds."""

    max_ttl: float = 300
    max_frame: int = MAX_FRAME
    max_connections: int = 2_000
    max_locks: int = 1_000_000
    max_waiters: int = 10_000
    max_all_waiters: int = 20_000
    idle: float = 120
    handshake: float = 5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value <= MOST:
                raise ValueError(
                    f"{field.name} is {value!r}, but must be more than 0, and at most {MOST}."
                )


class Process:
    """A client process, known by the connection on which it is told that its turn has come."""

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection
        self.party = Party()

    def tell(self, message: dict[str, Any]) -> bool:
        """Tell it; False if it doesn't hear any more."""
        return self.connection.send(message)


class Service:
    """The lock table, as its clients are served it."""

    def __init__(
        self, table: LockTable, secret: bytes, limits: Limits, tls: SSLContext | None = None
    ) -> None:
        self.table = table
        self.secret = secret
        self.limits = limits
        self.tls = tls
        self.log = ThrottledLog(logger)
        self.processes: dict[str, Process] = {}
        self.connections: set[Connection] = set()
        self.leaving: dict[Connection, None] = {}
        """Those that were told why they end, and aren't closed yet, in that order."""
        self.strangers: dict[Connection, None] = {}
        """The connections that haven't proved to know the secret yet, in the order they came."""
        self.listings = Listings()
        self.stopping = False
        self._began = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def connect(self) -> "Connection":
        """Return what serves a new connection."""
        return Connection(self)

    def make_room(self) -> None:
        """Close at once what can be spared: the system has no room for another connection."""
        for connection in [*self.leaving, *islice(self.strangers, SPARED)]:
            connection.abort()

    def look_after(self) -> None:
        """See to what has ended, and have that done again when something ends."""
        due = asyncio.get_running_loop().time() + self.table.run_due()
        if due < self._timer_at:
            self._set_timer(due)

    def _set_timer(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = asyncio.get_running_loop().call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self.look_after()

    def status(self) -> Answer:
        """Return what an operator wants to know."""
        return {
            "version": VERSION,
            "up": round(time.monotonic() - self._began, 3),
            "grace": round(self.table.grace, 3),
            "locks": len(self.table),
            "waiters": self.table.waiters,
            "connections": len(self.connections),
            "processes": len(self.processes),
            "limits": {each.name: getattr(self.limits, each.name) for each in fields(self.limits)},
        }

    def end_all(self) -> None:
        """Answer nothing any more, and tell everybody."""
        self.stopping = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self.connections):
            connection.end("closing", STOPS)

    async def closed(self) -> None:
        """Return when the clients have closed all connections, or had time to."""
        if closing := [connection.closed for connection in self.leaving]:
            await asyncio.wait(closing, timeout=FAREWELL)


class Connection(asyncio.Protocol):
    """One connection: a handshake, then requests, each answered before the next one.

    It counts from when it was accepted. TLS begins after that, and has no time of its own.
    """

    _transport: asyncio.Transport

    def __init__(self, service: Service) -> None:
        self._service = service
        self._buffer = bytearray()
        self._challenge = new_nonce()
        self._process: str | None = None
        self._serve: Callable[[Request], Answer] = self._shake_hands
        self._ended = False
        self._encrypting: asyncio.Task[None] | None = None
        """What shakes hands by TLS, before anything can be said."""
        self._unsaid = bytearray()
        """What is to be said after that."""
        self._heard = False
        """Whether something came since it was looked last."""
        self._timer: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Challenge who it is to say the secret, if there is room."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=UNREAD)
        service = self._service
        service.connections.add(self)
        if service.tls is not None:
            encrypting = self._encrypt(service.tls)
            self._encrypting = asyncio.get_running_loop().create_task(encrypting)
        if service.stopping:
            self.end("closing", STOPS)
            return
        if len(service.connections) > service.limits.max_connections:
            full = f"{service.limits.max_connections} connections are open, the most that may be."
            service.log.write("full", "%s", full)
            if not service.strangers:
                self.end("connections", full)
                return
            next(iter(service.strangers)).drop("handshake", "Others want to connect.")
        service.strangers[self] = None
        self.send({"distlock": VERSION, "challenge": self._challenge})
        self._expect(service.limits.handshake)

    async def _encrypt(self, tls: SSLContext) -> None:
        """Shake hands by TLS, then say what was to be said meanwhile, and answer what came."""
        if self._transport.is_closing():
            return
        encrypted = None
        try:
            encrypted = await asyncio.get_running_loop().start_tls(
                self._transport, self, tls, server_side=True
            )
        except SSLError as error:
            self._log_turned_away("TLS", str(error))
        except OSError:
            pass  # it has left
        self._encrypting = None
        if encrypted is None:
            self.connection_lost(None)
            return
        self._transport = encrypted
        encrypted.set_write_buffer_limits(high=UNREAD)
        encrypted.write(bytes(self._unsaid))
        self.data_received(b"")

    def _expect(self, seconds: float) -> None:
        """End it unless something comes in that time."""
        self._heard = False
        self._set_timer(seconds, self._look, seconds)

    def _set_timer(self, seconds: float, call: "Callable[..., None]", *arguments: float) -> None:
        """Call that after so long, and what was to be called before no more."""
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, call, *arguments)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, seconds: float) -> None:
        if self._heard and self not in self._service.strangers:
            self._expect(self._service.limits.idle)
        else:
            self.drop("idle", f"Nothing was asked in {seconds:g} seconds.")

    def data_received(self, data: bytes) -> None:
        """Answer what is whole; what comes after the last words is thrown away."""
        if not self._ended:
            self._buffer += data
            if self._encrypting is None:
                self._answer_lines()

    def _answer_lines(self) -> None:
        """Answer each line that is whole, as many as there is time for in this turn."""
        buffer, begin, end = self._buffer, 0, -1
        answers: list[bytes] = []
        until = time.monotonic() + TURN
        while not self._ended and (end := buffer.find(b"\n", begin)) >= 0:
            answers.append(self._answer(bytes(buffer[begin:end])))
            begin = end + 1
            if time.monotonic() > until:
                break
        del buffer[:begin]
        if end < 0 and len(buffer) > self._service.limits.max_frame:
            answers.append(self._refuse_frame())
        if answers:
            self._heard = True
            self._transport.write(b"".join(answers))
            self._service.look_after()
        if self._ended:
            self._hang_up()
        elif end >= 0:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        """Answer the other lines, now that others had their turn."""
        self._transport.resume_reading()
        if not self._ended:
            self._answer_lines()

    def _answer(self, line: bytes) -> bytes:
        if len(line) > self._service.limits.max_frame:
            return self._refuse_frame()
        try:
            return encode(self._serve(decode(line)))
        except BadFrame as error:
            return self._last_words("frame", str(error))
        except Invalid as error:
            return _error("invalid", str(error))
        except Refused as error:
            return _error("refused", str(error))
        except UnknownProcess as error:
            return _error("process", str(error))
        except Exception:  # noqa: BLE001 - the log has its traceback
            text = "A request could not be answered; its connection is closed."
            self._service.log.write("internal", text, failed=True)
            return self._last_words("internal", "The server failed; its log says how.")

    def _refuse_frame(self) -> bytes:
        longest = self._service.limits.max_frame
        return self._last_words("frame", f"A frame has {longest} bytes at most, and a line's end.")

    def _shake_hands(self, hello: Request) -> Answer:
        """Let in who proves to know the secret, and prove it to him."""
        service = self._service
        if hello.get("distlock") != VERSION:
            return self._turn_away("version", f"The server speaks version {VERSION} only.")
        nonce, process = hello.get("nonce"), hello.get("process")
        if not isinstance(nonce, str) or not is_proof(
            hello.get("answer"), service.secret, "client", self._challenge, nonce
        ):
            return self._turn_away("secret", "The secret is not the server's.")
        if process is not None:
            if not (isinstance(process, str) and PROCESS.fullmatch(process)):
                return self._turn_away("invalid", "process is 32 hexadecimal digits, or null.")
            self._listen_for(process)
        del service.strangers[self]
        self._serve = self._serve_friend
        return {
            "proof": prove(service.secret, "server", self._challenge, nonce),
            "max_ttl": service.limits.max_ttl,
            "max_frame": service.limits.max_frame,
            "idle": service.limits.idle,
        }

    def _listen_for(self, name: str) -> None:
        """Be where this process is told things, in the place of an earlier connection of its."""
        self._process = name
        process = self._service.processes.get(name)
        if process is None:
            self._service.processes[name] = Process(self)
        else:
            process.connection = self

    def _serve_friend(self, request: Request) -> Answer:
        return answer(self._service, request)

    def _turn_away(self, code: str, text: str) -> Answer:
        self._ended = True
        self._log_turned_away(code, text)
        return {"error": code, "text": text}

    def _log_turned_away(self, code: str, text: str) -> None:
        peer = self._transport.get_extra_info("peername") or "a process of this machine"
        self._service.log.write(code, "%s was turned away: %s", peer, text)

    def _last_words(self, code: str, text: str) -> bytes:
        self._ended = True
        return _error(code, text)

    def send(self, message: dict[str, Any]) -> bool:
        """Send what nobody asked for; False if the connection has ended."""
        if self._ended:
            return False
        self._write(encode(message))
        return True

    def _write(self, data: bytes) -> None:
        if self._encrypting is None:
            self._transport.write(data)
        else:
            self._unsaid += data

    def drop(self, code: str, text: str) -> None:
        """End it; without a word, if none can be said yet."""
        if self._encrypting is None:
            self.end(code, text)
        else:
            self.abort()

    def end(self, code: str, text: str) -> None:
        """Say why, and close the connection."""
        if not self._ended:
            self._write(self._last_words(code, text))
            self._hang_up()

    def _hang_up(self) -> None:
        """Let the client close it when it has read the last words, or close it after a while.

        What is closed before all was read that came is reset, and the last words may be lost.
        """
        self._buffer.clear()
        service = self._service
        self._count_no_more()
        if self._transport.is_closing():
            return
        # Not by TLS: there it is the client's to close it.
        if self._encrypting is None and self._transport.can_write_eof():
            with suppress(OSError):  # it is gone already
                self._transport.write_eof()
        service.leaving[self] = None
        self._set_timer(FAREWELL, self.abort)
        if len(service.leaving) > service.limits.max_connections:
            next(iter(service.leaving)).abort()

    def abort(self) -> None:
        """Close it at once."""
        self._ended = True
        self._count_no_more()
        self._transport.abort()

    def _count_no_more(self) -> None:
        service = self._service
        service.connections.discard(self)
        service.leaving.pop(self, None)
        service.strangers.pop(self, None)

    def pause_writing(self) -> None:
        """Close it: the client leaves unread what it asks for."""
        self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Let what ends with the connection end."""
        if self.closed.done():  # TLS may have told it, or failed before it could
            return
        self._ended = True
        self._stop_timer()
        self._count_no_more()
        service = self._service
        if self._process is not None and not service.stopping:
            process = service.processes.get(self._process)
            if process is not None and process.connection is self:
                del service.processes[self._process]
                service.table.disband(process.party)
                service.look_after()
        self.closed.set_result(None)


def _error(code: str, text: str) -> bytes:
    return encode({"error": code, "text": text})
