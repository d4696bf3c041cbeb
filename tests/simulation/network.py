"""The network between simulated processes: delays, partitions, and connections that are cut.

As with TCP, what is sent on a connection arrives once and in order, or not at all. A partition
keeps it back until it is over, and then it is sent again; a cut loses it.
"""

from __future__ import annotations

from enum import Enum, auto
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from .scheduler import Scheduler

if TYPE_CHECKING:
    from .machines import Process
    from .sockets import ListeningSocket, Socket

LONGEST_RETRANSMISSION: Final = 1.5
"""Seconds after a partition until what was lost in it is sent again, at most."""


class Direction(Enum):
    """The direction of what is sent, seen from the server."""

    IN = auto()
    OUT = auto()


class Kind(Enum):
    """What is sent on a connection."""

    CONNECT = auto()
    CONNECTED = auto()
    DATA = auto()
    END = auto()
    RESET = auto()


class Segment(NamedTuple):
    """Something that is sent on a connection."""

    kind: Kind
    data: bytes = b""


class Network:
    """All connections, and what is wrong with them."""

    def __init__(self, typical_delay: float, slow_share: float, hiccups: float = 0.0) -> None:
        self.listening: ListeningSocket | None = None
        self.hiccups = hiccups
        """The share of sends before which a thread has to wait for a processor."""
        self.has_forgotten = False
        """Whether connections were cut without a word: the server keeps them for a while."""
        self.extra_delay = 0.0
        """Seconds that everything takes longer, at most."""
        self.channels: list[Channel] = []
        self.segments: list[tuple[float, str, Direction, Segment]] = []
        """All that has arrived, with the time and the client's name."""
        self.lost_replies = 0.0
        """The share of replies with which their connection is lost."""
        self._blocked: dict[tuple[str, Direction], float] = {}
        """Until when what a client sends or receives doesn't arrive."""
        self._typical_delay = typical_delay
        self._slow_share = slow_share
        self._numbers = count(1_000_000)

    def new_descriptor(self) -> int:
        """Return a number that no real file has."""
        return next(self._numbers)

    def delay(self) -> float:
        """Return how long the next segment takes."""
        random = Scheduler.current.random
        seconds = self._typical_delay * (0.5 + random.random())
        if random.random() < self._slow_share:
            seconds += random.expovariate(2.0)
        if self.extra_delay:
            seconds += self.extra_delay * random.random()
        return seconds

    def partition(self, client: str, directions: list[Direction], seconds: float) -> None:
        """Let nothing of this client arrive in these directions for so many seconds."""
        scheduler = Scheduler.current
        for direction in directions:
            earlier = self._blocked.get((client, direction), 0.0)
            self._blocked[client, direction] = max(earlier, scheduler.now + seconds)

    def blocked_until(self, client: str, direction: Direction) -> float:
        """Return until when this is partitioned."""
        return self._blocked.get((client, direction), 0.0)

    def connect(self, near: Socket, client: Process) -> None:
        """Ask the server for a connection; the socket is told how that ends."""
        inwards = Channel(self, client, Direction.IN, near)
        near.outwards = inwards
        self.channels.append(inwards)
        inwards.send(Segment(Kind.CONNECT))

    def cut(self, client: str, *, silently: bool) -> None:
        """Cut all connections of this client: what is under way is lost.

        Silently means that neither side is told, as when a router forgets them.
        """
        self.has_forgotten |= silently
        for channel in self.channels:
            if channel.client.name == client:
                channel.is_cut = True
                if not silently:
                    channel.reset_ends()
        self.channels = [channel for channel in self.channels if not channel.is_cut]

    def lose_connection(self, of: Channel) -> None:
        """Cut the connection that this is a direction of; both sides are told."""
        for channel in self.channels:
            if of.target in (channel.source, channel.target):
                channel.is_cut = True
        of.reset_ends()
        self.channels = [channel for channel in self.channels if not channel.is_cut]


class Channel:
    """One direction of a connection."""

    def __init__(
        self, network: Network, client: Process, direction: Direction, source: Socket
    ) -> None:
        self.client = client
        self.source = source
        self.target: Socket | None = None
        self.is_cut = False
        self._network = network
        self._direction = direction
        self._last_arrival = 0.0
        self._held: list[Segment] = []
        """What a partition keeps back."""

    def send(self, segment: Segment) -> None:
        """Send; what was sent before arrives before."""
        scheduler = Scheduler.current
        at = max(self._last_arrival, scheduler.now + self._network.delay())
        self._last_arrival = at
        scheduler.call_at(at, partial(self._arrive, segment))

    def _arrive(self, segment: Segment) -> None:
        network = self._network
        if self.is_cut:
            return
        if (
            network.lost_replies
            and (self._direction, segment.kind) == (Direction.OUT, Kind.DATA)
            and Scheduler.current.random.random() < network.lost_replies
        ):
            network.lose_connection(self)
        elif self._held or self._is_blocked():
            self._held.append(segment)
            if len(self._held) == 1:
                self._send_again_later()
        else:
            self._deliver(segment)

    def _is_blocked(self) -> bool:
        until = self._network.blocked_until(self.client.name, self._direction)
        return until > Scheduler.current.now

    def _send_again_later(self) -> None:
        scheduler = Scheduler.current
        until = self._network.blocked_until(self.client.name, self._direction)
        at = until + LONGEST_RETRANSMISSION * scheduler.random.random()
        self._last_arrival = max(self._last_arrival, at)
        scheduler.call_at(at, self._send_again)

    def _send_again(self) -> None:
        if self.is_cut:
            return
        if self._is_blocked():
            self._send_again_later()
            return
        held, self._held = self._held, []
        for segment in held:
            self._deliver(segment)

    def _deliver(self, segment: Segment) -> None:
        network = self._network
        network.segments.append((Scheduler.current.now, self.client.name, self._direction, segment))
        if segment.kind is Kind.CONNECT:
            self._accept()
        elif self.target is not None:
            self.target.receive(segment)

    def _accept(self) -> None:
        """Connect the other side, or tell the client that nobody listens."""
        network, near = self._network, self.source
        listening = network.listening
        if listening is not None and not listening.process.machine.is_up:
            return
        outwards = Channel(network, self.client, Direction.OUT, near)
        outwards.target = near
        network.channels.append(outwards)
        if listening is None:
            outwards.send(Segment(Kind.RESET))
            return
        self.target = outwards.source = listening.add(outwards)
        outwards.send(Segment(Kind.CONNECTED))

    def reset_ends(self) -> None:
        """Tell both sides that the connection is lost."""
        for end in (self.source, self.target):
            if end is not None:
                end.receive(Segment(Kind.RESET))
