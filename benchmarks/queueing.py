"""A queueing network in virtual time: clients that ask stations, one after the other."""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

MANY: Final = 1_000_000_000
SEED: Final = 21


@dataclass
class Station:
    """Something that serves so many requests at a time, each for about so many seconds.

    With `batch`, a service is for all that wait for it, as one flush is for many commits.
    """

    seconds: float
    servers: int = 1
    batch: bool = False
    busy: int = 0
    waiting: deque[int] = field(default_factory=deque)


class Network:
    """Clients go through all stations in turn."""

    def __init__(self, stations: list[Station]) -> None:
        self.stations = stations
        self.now = 0.0
        self.done: list[float] = []
        """How long each round took."""
        self._began: dict[int, float] = {}
        self._events: list[tuple[float, int, int, list[int]]] = []
        self._number = 0
        self._random = random.Random(SEED)

    def run_closed(self, clients: int, seconds: float) -> float:
        """Let so many clients begin again as soon as they are done; return the rounds a second."""
        for client in range(clients):
            self._enter(client)
        while self.now < seconds:
            for client in self._serve_next():
                self._enter(client)
        return len(self.done) / self.now

    def run_open(self, rate: float, seconds: float) -> list[float]:
        """Let clients come at this rate, at random; return how long each took, in order."""
        client, next_arrival = 0, 0.0
        while self.now < seconds:
            next_arrival += self._random.expovariate(rate)
            while self._events and self._events[0][0] <= next_arrival:
                self._serve_next()
            self.now = next_arrival
            self._enter(client := client + 1)
        return sorted(self.done)

    def _enter(self, client: int) -> None:
        self._began[client] = self.now
        self._arrive(client, 0)

    def _arrive(self, client: int, place: int) -> None:
        self.stations[place].waiting.append(client)
        self._begin(place)

    def _begin(self, place: int) -> None:
        station = self.stations[place]
        if not station.waiting or station.busy >= station.servers:
            return
        number = len(station.waiting) if station.batch else 1
        served = [station.waiting.popleft() for _ in range(number)]
        station.busy += 1
        ends = self.now + self._random.expovariate(1 / station.seconds)
        self._number += 1
        heappush(self._events, (ends, self._number, place, served))

    def _serve_next(self) -> list[int]:
        """Finish the next service; return the clients that are done with all stations."""
        self.now, _, place, served = heappop(self._events)
        self.stations[place].busy -= 1
        self._begin(place)
        if place + 1 < len(self.stations):
            for client in served:
                self._arrive(client, place + 1)
            return []
        self.done += [self.now - self._began.pop(client) for client in served]
        return served


def closed_rate(clients: int, cycle: float, bottleneck: float) -> float:
    """Return the rounds a second of clients that share one bottleneck.

    Alone, a client takes `cycle` seconds for a round, of which it is at the bottleneck for
    `bottleneck`.
    """
    elsewhere = max(cycle - bottleneck, bottleneck / MANY)
    stations = [Station(bottleneck), Station(elsewhere, servers=MANY)]
    return Network(stations).run_closed(clients, 3_000 * cycle)


def response(rate: float, servers: int, seconds: float, part: float) -> float:
    """Return within how many seconds this part of requests is answered; inf if they pile up."""
    if rate * seconds >= servers:
        return math.inf
    taken = Network([Station(seconds, servers)]).run_open(rate, 30_000 / rate)
    return taken[int(part * len(taken))]
