"""Simulated sockets, for blocking code in simulated threads and for event loops."""

from __future__ import annotations

import errno
import socket
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from django_distlock.backends.sockets.readiness import READ

from .network import Channel, Kind, Network, Segment
from .scheduler import Scheduler, Waiters
from .threads import running_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from .machines import Process


class BaseSocket:
    """What listening and connected sockets have in common."""

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = socket.IPPROTO_TCP

    def __init__(self, network: Network, process: Process) -> None:
        self.process = process
        self.is_closed = False
        self.on_readable: Callable[[], object] | None = None
        """Called when there is something to read: set by an event loop."""
        self._network = network
        self._descriptor = network.new_descriptor()
        self._timeout: float | None = None
        self._readers = Waiters()
        process.sockets.append(self)  # type: ignore[arg-type]
        of_descriptor[self._descriptor] = self  # type: ignore[assignment]

    def fileno(self) -> int:
        """See socket.fileno()."""
        return -1 if self.is_closed else self._descriptor

    def settimeout(self, seconds: float | None) -> None:
        """See socket.settimeout()."""
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        """See socket.gettimeout()."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """See socket.setblocking()."""
        self._timeout = None if flag else 0.0

    def setsockopt(self, *option: object) -> None:
        """Do nothing: no option matters here."""

    def is_readable(self) -> bool:
        """Return whether recv() or accept() would not wait."""
        raise NotImplementedError

    def wait_readable(self, seconds: float | None) -> bool:
        """Wait until that is so, or for so many seconds."""
        if not self.is_readable() and (seconds is None or seconds > 0):
            self._readers.wait(seconds)
        return self.is_readable()

    def notify(self) -> None:
        """Wake those who wait to read."""
        self._readers.wake_all()
        if self.on_readable is not None:
            self.on_readable()


class ListeningSocket(BaseSocket):
    """The socket at which the server listens."""

    def __init__(self, network: Network, process: Process) -> None:
        super().__init__(network, process)
        self._backlog: deque[Socket] = deque()

    def listen(self, backlog: int) -> None:
        """See socket.listen()."""
        self._network.listening = self

    def add(self, outwards: Channel) -> Socket:
        """Add a connection, which the server may accept; return its end."""
        accepted = Socket(self._network, self.process)
        accepted.outwards, accepted.is_connected = outwards, True
        self._backlog.append(accepted)
        self.notify()
        return accepted

    def is_readable(self) -> bool:
        return bool(self._backlog)

    def accept(self) -> tuple[Socket, tuple[str, int]]:
        """See socket.accept()."""
        if not self._backlog:
            raise BlockingIOError
        return self._backlog.popleft(), ("client", 0)

    def close(self) -> None:
        """See socket.close()."""
        self.vanish()
        for accepted in self._backlog:
            accepted.close()

    def vanish(self) -> None:
        """Listen no longer."""
        self.is_closed = True
        of_descriptor.pop(self._descriptor, None)
        if self._network.listening is self and self.process.machine.is_up:
            self._network.listening = None


class Socket(BaseSocket):
    """One end of a connection."""

    def __init__(self, network: Network, process: Process) -> None:
        super().__init__(network, process)
        self.is_connected = False
        self.outwards: Channel | None = None
        self._received = bytearray()
        self._has_end = self._has_sent_end = False
        self._error: OSError | None = None

    def getsockname(self) -> tuple[str, int]:
        """See socket.getsockname()."""
        return self.process.name, self._descriptor

    getpeername = getsockname

    def connect(self, address: object) -> None:
        """See socket.connect()."""
        self._network.connect(self, running_process())
        if not self.is_readable():
            self._readers.wait(self._timeout)
        if self._error is not None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        if not self.is_connected:
            raise TimeoutError("timed out")

    def is_readable(self) -> bool:
        return bool(self._received) or self._has_end or self._error is not None

    def receive(self, segment: Segment) -> None:
        """Take what arrives."""
        match segment.kind:
            case _ if self.is_closed:
                if segment.kind is Kind.DATA and self.process.machine.is_up:
                    self._send(Segment(Kind.RESET))
                return
            case Kind.CONNECTED:
                self.is_connected = True
            case Kind.DATA:
                self._received += segment.data
            case Kind.END:
                self._has_end = True
            case _:
                self._error = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
                self._received.clear()
        self.notify()

    def recv(self, size: int) -> bytes:
        """See socket.recv()."""
        if not self.wait_readable(self._timeout):
            raise BlockingIOError if self._timeout == 0 else TimeoutError("timed out")
        if self._received:
            data = bytes(self._received[:size])
            del self._received[:size]
            return data
        if self._error is not None:
            raise self._error
        return b""

    def sendall(self, data: bytes) -> None:
        """See socket.sendall(). The thread may have to wait for a processor first."""
        scheduler = Scheduler.current
        if scheduler.thread is not None and scheduler.random.random() < self._network.hiccups:
            scheduler.sleep(scheduler.random.expovariate(5.0))
        self.send(data)

    def send(self, data: bytes) -> int:
        """See socket.send(). There is always room."""
        if self._error is not None:
            raise self._error
        if self._has_sent_end or self.is_closed:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        self._send(Segment(Kind.DATA, bytes(data)))
        return len(data)

    def _send(self, segment: Segment) -> None:
        if self.outwards is not None:
            self.outwards.send(segment)

    def shutdown(self, how: int) -> None:
        """See socket.shutdown()."""
        if self._error is not None:
            raise OSError(errno.ENOTCONN, "not connected")
        if not self._has_sent_end:
            self._has_sent_end = True
            self._send(Segment(Kind.END))
        if how == socket.SHUT_RDWR:
            self._has_end = True
            self.notify()

    def close(self) -> None:
        """See socket.close(): the other side receives a reset if something is left unread."""
        if self.is_closed:
            return
        is_unread = bool(self._received)
        self.vanish()
        if self._error is None and (is_unread or not self._has_sent_end):
            self._send(Segment(Kind.RESET if is_unread else Kind.END))

    def vanish(self) -> None:
        """End without a message."""
        self.is_closed = True
        of_descriptor.pop(self._descriptor, None)


of_descriptor: Final[dict[int, Socket]] = {}


def readiness(descriptor: int, wanted: int) -> Callable[[float], int]:
    """See the function in backends/sockets."""
    found = of_descriptor[descriptor]
    return lambda seconds: READ * found.wait_readable(seconds)


def socket_module(network: Network) -> Any:
    """Return what the client finds in the module socket."""

    def getaddrinfo(host: str, port: int, **options: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]

    return SimpleNamespace(
        socket=lambda *kind: Socket(network, running_process()),
        getaddrinfo=getaddrinfo,
        **{
            name: getattr(socket, name)
            for name in ("AF_UNIX", "SOCK_STREAM", "IPPROTO_TCP", "TCP_NODELAY", "SHUT_RDWR")
        },
    )
