"""A connection to a lock server: a handshake, then requests, each answered before the next one."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from ssl import SSLContext, SSLError
from typing import Final, cast

from django_distlock.logs import room_logger
from django_distlock.redaction.tracebacks import clear_variables

from .admission import CLOSE_TIMEOUT
from .errors import RequestError
from .handshake import Handshake, HandshakeFailed
from .protocol import BadFrame, Message, decode, encode, error_message
from .requests import answer
from .service import STOPPING, Service

logger = room_logger("server")

UNREAD: Final = 16 * 1024 * 1024
"""Bytes of answers that a client may leave unread: more than the longest page of locks has."""
TURN: Final = 0.01
"""Seconds, about, for which requests of one client are answered while others wait."""


class Connection(asyncio.Protocol):
    """The server's side of one connection.

    It counts from when it was accepted. TLS begins after that, in the time of the handshake.
    """

    _transport: asyncio.Transport

    def __init__(self, service: Service) -> None:
        self._service = service
        self._handshake = Handshake(service.secret, service.limits)
        self._buffer = bytearray()
        self._process: str | None = None
        self._answer_message: Callable[[Message], Message] = self._shake_hands
        self._ended = False
        self._starting_tls: asyncio.Task[None] | None = None
        self._unsent = bytearray()
        """What to send as soon as TLS is there."""
        self._active = False
        """Whether a message was received since the timer was set."""
        self._timer: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the challenge, if there is room for the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=UNREAD)
        service = self._service
        service.admission.add(self)
        if service.tls is not None:
            starting = self._start_tls(service.tls)
            self._starting_tls = asyncio.get_running_loop().create_task(starting)
        if service.stopping:
            self.end(*STOPPING)
        elif (full := service.admission.admit(self)) is not None:
            self.end("connections", full)
        else:
            self.send(self._handshake.greeting())
            self._watch_idle(service.limits.handshake)

    async def _start_tls(self, tls: SSLContext) -> None:
        """Shake hands by TLS, then send what waits for that, and answer what was received."""
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
            pass  # the client has left
        self._starting_tls = None
        if encrypted is None:
            self.connection_lost(None)
            return
        self._transport = encrypted
        encrypted.set_write_buffer_limits(high=UNREAD)
        encrypted.write(bytes(self._unsent))
        self.data_received(b"")

    def _watch_idle(self, seconds: float) -> None:
        """Drop the connection unless a message is received in this time."""
        self._active = False
        self._set_timer(seconds, self._check_idle, seconds)

    def _check_idle(self, seconds: float) -> None:
        if self._active and self not in self._service.admission.unauthenticated:
            self._watch_idle(self._service.limits.idle)
        else:
            self.drop("idle", f"No request was made in {seconds:g} seconds.")

    def _set_timer(self, seconds: float, call: Callable[..., None], *arguments: float) -> None:
        """Replace the timer."""
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, call, *arguments)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer complete lines. What is received after the last message is ignored."""
        if not self._ended:
            self._buffer += data
            if self._starting_tls is None:
                self._answer_lines()

    def _answer_lines(self) -> None:
        """Answer complete lines, as many as there is time for in this turn."""
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
            self._active = True
            self._transport.write(b"".join(answers))
            self._service.run_due()
        if self._ended:
            self._hang_up()
        elif end >= 0:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        """Answer the remaining lines, now that other clients had their turn."""
        self._transport.resume_reading()
        if not self._ended:
            self._answer_lines()

    def _answer(self, line: bytes) -> bytes:
        if len(line) > self._service.limits.max_frame:
            return self._refuse_frame()
        try:
            return encode(self._answer_message(decode(line)))
        except RequestError as error:
            return encode(error_message(error.code, str(error)))
        except HandshakeFailed as error:
            self._log_turned_away(error.code, str(error))
            return self._last_message(error.code, str(error))
        except BadFrame as error:
            return self._last_message("frame", str(error))
        except Exception as error:
            line = b""  # an error tracker shows the variables of all frames; it has the owner
            clear_variables(error, None)
            logger.exception("A request could not be answered; its connection is closed.")
            return self._last_message("internal", "The server failed; its log says how.")

    def _refuse_frame(self) -> bytes:
        longest = self._service.limits.max_frame
        return self._last_message("frame", f"A frame has at most {longest} bytes and a line's end.")

    def _shake_hands(self, hello: Message) -> Message:
        terms, self._process = self._handshake.complete(hello)
        if self._process is not None:
            self._service.processes.listen(self._process, self)
        self._service.admission.authenticated(self)
        self._answer_message = self._answer_request
        return terms

    def _answer_request(self, request: Message) -> Message:
        return answer(self._service, request)

    def _log_turned_away(self, code: str, text: str) -> None:
        peer = self._transport.get_extra_info("peername") or "a process of this machine"
        logger.warning("%s was turned away: %s", peer, text, extra={"reason": code})

    def _last_message(self, code: str, text: str) -> bytes:
        self._ended = True
        return encode(error_message(code, text))

    def send(self, message: Message) -> bool:
        """Send an unsolicited message; False if the connection has ended."""
        if self._ended:
            return False
        self._write(encode(message))
        return True

    def _write(self, data: bytes) -> None:
        if self._starting_tls is None:
            self._transport.write(data)
        else:
            self._unsent += data

    def drop(self, code: str, text: str) -> None:
        """Close the connection, with a last message unless TLS isn't there yet."""
        if self._starting_tls is None:
            self.end(code, text)
        else:
            self.abort()

    def end(self, code: str, text: str) -> None:
        """Send a last message that says why, and close the connection."""
        if not self._ended:
            self._write(self._last_message(code, text))
            self._hang_up()

    def _hang_up(self) -> None:
        """Give the client CLOSE_TIMEOUT seconds to read the last message and close the connection.

        A connection that is closed before all received data was read is reset, and the last message
        may be lost.
        """
        self._buffer.clear()
        admission = self._service.admission
        admission.remove(self)
        if self._transport.is_closing():
            return
        # TLS can't close one direction alone: there the client has to close the connection.
        if self._starting_tls is None and self._transport.can_write_eof():
            with suppress(OSError):  # the client has left
                self._transport.write_eof()
        admission.start_closing(self)
        self._set_timer(CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        """Close the connection at once."""
        self._ended = True
        self._service.admission.remove(self)
        self._transport.abort()

    def pause_writing(self) -> None:
        """Close the connection: the client doesn't read its answers."""
        self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """End what ends with the connection."""
        if self.closed.done():  # reported by TLS already, or TLS failed before it could be
            return
        self._ended = True
        self._stop_timer()
        self._service.admission.remove(self)
        if self._process is not None:
            self._service.disconnect(self._process, self)
        self.closed.set_result(None)
