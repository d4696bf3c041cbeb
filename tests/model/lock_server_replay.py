"""Repeat a run of the model on the lock server's own requests, with a clock that stands still."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from django_distlock.backends.server.messages import (
    acquire_request,
    join_request,
    read_grant,
    release_request,
    renew_request,
)
from django_distlock.server.errors import Refused
from django_distlock.server.limits import Limits
from django_distlock.server.locks import EXPIRED
from django_distlock.server.requests import answer
from django_distlock.server.service import Service
from django_distlock.server.table import LockTable
from django_distlock.server.transitions import OFFER_SECONDS

from .replay import SEMAPHORES, TTL, Replay

if TYPE_CHECKING:
    from django_distlock.server.protocol import Message

    from .replay import Client

START: Final = 1_800_000_000_000_000
DAY: Final = 86_400_000_000


class Screen:
    """A connection that only takes note of offers: the replay asks for each lock by itself."""

    def send(self, message: Any) -> bool:
        return True


class LockServerReplay(Replay):
    """The requests are carried out as they arrive; the network is left out."""

    tick_seconds = OFFER_SECONDS

    def __init__(self) -> None:
        super().__init__()
        self._behind = 0
        """Microseconds by which the server's wall clock was set back."""
        self._service = self._start(grace=0)

    def _start(self, grace: float) -> Service:
        table = LockTable(
            grants_from=self._monotonic() + grace if grace else EXPIRED,
            monotonic=self._monotonic,
            microseconds=lambda: START + round(self._monotonic() * 1_000_000) - self._behind,
        )
        service = Service(table, b"", Limits())
        for number in self.clients:
            service.processes.listen(name_of(number), Screen())
        return service

    def _ask(self, request: Message) -> Message:
        """Ask as the backend does, which sends JSON."""
        return answer(self._service, json.loads(json.dumps(request)))

    def _monotonic(self) -> float:
        return self.now * self.tick_seconds

    def acquire(self, client: Client) -> int | str:
        name = SEMAPHORES[client.lock]
        ttl = TTL * self.tick_seconds
        request, _ = acquire_request(name, client.owner, ttl, "a client", 1)
        try:
            grant = read_grant(self._ask(request))
        except Refused:  # in the grace period
            return "refused"
        return (grant.token or 0) if grant else "refused"

    def renew(self, client: Client) -> str:
        [end] = self._ask(renew_request([self.claim(client)]))["expires_at"]
        return "held" if end else "lost"

    def release(self, client: Client) -> str:
        released = self._ask(release_request(self.claim(client), 0))["released"]
        return "released" if released else "lost"

    def join(self, client: Client) -> str:
        request = join_request(SEMAPHORES[client.lock], client.owner, "a client")
        self._ask(request | {"process": name_of(client.number), "number": 1})
        return "queued"

    def leave(self, client: Client) -> str:
        names = {"semaphore": SEMAPHORES[client.lock], "owner": client.owner}
        self._ask({"do": "leave", **names})
        return "gone"

    def speak(self, client: Client) -> str:
        return "done" if self.acquire(client) == "refused" else "granted"

    def tick(self) -> None:
        self._service.table.run_due()

    def set_back(self) -> None:
        self._behind = DAY // 2

    def catch_up(self) -> None:
        self._behind = 0

    def force_release(self, semaphore: str) -> None:
        token = self._service.table.locks[semaphore].token
        request = {"do": "force_release", "semaphore": semaphore, "token": token}
        assert self._ask(request)["released"]

    def crash(self) -> None:
        """Lose the table."""

    def restart(self) -> None:
        """Start without the table, with a grace period of the longest ttl."""
        self._service = self._start(grace=TTL * self.tick_seconds)


def name_of(number: int) -> str:
    """Return the name of the client's process."""
    return str(number) * 32
