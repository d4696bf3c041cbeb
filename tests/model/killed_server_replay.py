"""Repeat a run of the model on a real lock server, a process that is killed and started again."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self

from django_distlock import LockBackendUnavailable
from django_distlock.records import RenewalOutcome
from tests.support.lock_servers import (
    MOVED_CLOCK,
    locks_of,
    move_clock,
    start_careful_lock_server,
    state_file,
)

from .replay import SEMAPHORES, TTL, Replay

if TYPE_CHECKING:
    from .replay import Client

TICK: Final = 500.0
"""Seconds: nobody notices the time that the test takes."""


class KilledServerReplay(Replay):
    """A server whose clock a test moves; its clients are at its store."""

    tick_seconds = TICK

    def __init__(self, grace: int | None = None) -> None:
        """Let the grace period be so many ticks, after the loss of the state file, if given."""
        super().__init__()
        self._grace = grace
        self._ttl = TTL * TICK

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            longest = f"--max-ttl={TTL * TICK:.0f}"
            server = start_careful_lock_server(longest, "--idle=100000", settings=MOVED_CLOCK)
            self._server = stack.enter_context(server)
            self._store = stack.enter_context(locks_of(server))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def acquire(self, client: Client) -> int | str:
        name = SEMAPHORES[client.lock]
        try:
            grant = self._store.acquire(name, client.owner, self._ttl, "a client")
        except LockBackendUnavailable:  # in the grace period
            return "refused"
        return (grant.token or 0) if grant else "refused"

    def renew(self, client: Client) -> str:
        claim = self.claim(client)
        outcome = self._store.renew([claim])[claim.owner].outcome
        return {RenewalOutcome.RENEWED: "held", RenewalOutcome.LOST: "lost"}[outcome]

    def release(self, client: Client) -> str:
        return "released" if self._store.release(self.claim(client)) else "lost"

    def tick(self) -> None:
        move_clock(self._server.directory, self.now * TICK)

    def crash(self) -> None:
        """Kill the server."""
        self._server.kill()

    def restart(self) -> None:
        """Start it again."""
        if self._grace is not None:
            state_file(self._server.directory).unlink()
            parts = self._server.executor.command_parts
            assert isinstance(parts, list)
            self._ttl = self._grace * TICK
            parts.append(f"--max-ttl={self._ttl:.0f}")
        self._server.start()
