"""The Memcached backend: what is stored under which key, for how long, and what an error means."""

import hashlib
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.checks import CheckMessage

from django_distlock import clocks
from django_distlock.backends.base import BaseLockBackend
from django_distlock.exceptions import InvalidLockBackend, LockBackendUnavailable
from django_distlock.records import (
    LOST,
    REFUSED,
    Claim,
    Grant,
    Refusal,
    Released,
    Renewal,
    RenewalOutcome,
)

from .batches import BatchedRenewals
from .cache_checks import PYMEMCACHE, check_own_cache, find_cache
from .memcached_clients import Client, Conversation, Server, shared_server
from .time_budget import Budget, validate_store_timeout

__all__ = ["MemcachedBackend"]

T = TypeVar("T")

LONGEST_EXPIRY: Final = 30 * 24 * 60 * 60
"""Seconds. Memcached takes a longer expiry for a date."""
CLOCK_LAG: Final = 2
"""Seconds to add to each expiry, since the server's clock lags by up to that.

It shows whole seconds, is set about once a second, and sometimes skips one.
"""
EXPIRED: Final = LONGEST_EXPIRY + 1
"""A date in 1970: what is stored with it is gone at once."""
MAX_KEY_BYTES: Final = 250
KEPT: Final = "kept"
"""The owner of a semaphore that was released, but is kept from others for a while."""


class MemcachedBackend(BaseLockBackend):
    """A store on the one Memcached server of the cache with the alias `cache`.

    **Not guaranteed:** that a lock is kept until its lease ends. The server forgets all locks when
    it is restarted or flushed. When its memory is full, it may evict held ones, unless it runs with
    `-M`. The lock is then granted again at once. The holder finds out when its lease is renewed
    next. There is no fencing token to protect against that.

    The store can't list locks, so the admin and the commands don't show them. A ttl is a number of
    whole seconds. Each expiry is two seconds longer, because the server's clock may lag by that
    much. It can skip another second: a dead holder's lock is free up to three seconds late.

    Only the rate of the server's clock counts; it stands still while the server is suspended. A
    lease's `acquired_at` and `expires_at` are by the holder's own clock, for people.

    A call ends within `store_timeout` seconds, whatever the cache's own settings are.
    """

    shortest_ttl = 1
    longest_ttl = LONGEST_EXPIRY - CLOCK_LAG
    store_timeout: float

    def __init__(
        self,
        alias: str,
        *,
        cache: str,
        ttl: float | None = 60,
        store_timeout: float = 2,
        guard_commits: bool = True,
        events: bool = False,
    ) -> None:
        super().__init__(alias, ttl=ttl, guard_commits=guard_commits, events=events)
        self.cache = cache
        self.store_timeout = validate_store_timeout(alias, store_timeout)
        self._budget = Budget(store_timeout)
        found = find_cache(alias, cache, [PYMEMCACHE])
        servers = found.client_servers  # type: ignore[attr-defined]
        if len(servers) != 1:
            raise InvalidLockBackend(
                f"DISTLOCK[{alias!r}]: cache {cache!r} has {len(servers)} servers in its LOCATION, "
                "but locks need one: when a client takes one for dead, or is given another one, "
                "semaphores move to other servers, which grant them again."
            )
        self._prefix = self._validate_prefix(found)
        # Other settings are another server: a test may override them.
        self._server_key = cache, repr(caches.settings[cache]), self.store_timeout
        self._make_server = lambda: Server(found)
        try:
            Server(found).new(self.store_timeout).close()  # which never connects
        except Exception as error:
            raise InvalidLockBackend(
                f"DISTLOCK[{alias!r}]: cache {cache!r} makes no client: {error!r}"
            ) from error

    def _validate_prefix(self, cache: BaseCache) -> bytes:
        """Return the prefix of all keys, without the cache's VERSION, which would split locks."""
        options: dict[str, Any] = cache._options  # type: ignore[attr-defined]
        own = options.get("key_prefix") or b""
        prefix = own.encode() if isinstance(own, str) else own
        prefix += f"{cache.key_prefix}:distlock:".removeprefix(":").encode()
        key = prefix + _digest("")
        if len(key) > MAX_KEY_BYTES or any(byte <= 32 or byte == 127 for byte in key):
            raise InvalidLockBackend(
                f"DISTLOCK[{self.alias!r}]: cache {self.cache!r} has KEY_PREFIX "
                f"{cache.key_prefix!r}, with which keys of locks take {len(key)} bytes: "
                f"Memcached takes {MAX_KEY_BYTES}, and no spaces or control characters in them."
            )
        return prefix

    def validate_ttl(self, ttl: float | None) -> float | None:
        seconds = super().validate_ttl(ttl)
        if seconds is not None and seconds != int(seconds):
            raise ValueError(
                f"ttl is {ttl!r}, but Memcached counts whole seconds: give {math.ceil(seconds)}."
            )
        return seconds

    def time_budget(self) -> Budget:
        return self._budget

    def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | Refusal:
        key, expiry, now = self._key(semaphore), _expiry(ttl), datetime.now(UTC)
        if not self._run(lambda talk: talk.acquire(key, owner, expiry)):
            return REFUSED
        return Grant(None, now, _end(now, ttl))

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        """See BaseLockBackend.renew().

        Each answer shows that the server is up, and gives the next one `store_timeout` seconds.
        When the server has been silent for that long, the remaining leases are not tried.
        """
        renewals, remaining = BatchedRenewals(), list(reversed(leases))
        deadline = self._budget.deadline()

        def renew_all(talk: Conversation) -> None:
            nonlocal deadline
            while remaining:
                lease, now = remaining[-1], datetime.now(UTC)
                key, expiry = self._key(lease.semaphore), _expiry(lease.ttl)
                held = talk.replace(key, lease.owner, lease.owner, expiry)
                renewed = Renewal(RenewalOutcome.RENEWED, _end(now, lease.ttl))
                renewals.add({lease.owner: renewed if held else LOST})
                remaining.pop()
                deadline = self._budget.deadline()
                talk.deadline = deadline

        while remaining:
            try:
                self._run(renew_all, deadline)
            except LockBackendUnavailable as error:
                silent = clocks.monotonic() >= deadline
                renewals.add_failed(
                    [remaining.pop() for _ in range(len(remaining) if silent else 1)], error
                )
        return renewals.result()

    def release(self, lease: Claim, keep: float = 0) -> Released:
        key, expiry = self._key(lease.semaphore), _expiry(keep) if keep else EXPIRED
        released = self._run(lambda talk: talk.replace(key, lease.owner, KEPT, expiry))
        return Released.FREED if released else Released.NOT_HELD

    @property
    def keeps_open(self) -> bool:
        return True

    def close(self) -> None:
        self.server.close_idle()

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        return [*super().check(**kwargs), *check_own_cache(self.alias, self.cache)]

    def _key(self, semaphore: str) -> bytes:
        return self._prefix + _digest(semaphore)

    @property
    def server(self) -> Server:
        """The server with its idle connections, which the threads of this process share."""
        return shared_server(self._server_key, self._make_server)

    def _run(self, action: Callable[[Conversation], T], deadline: float | None = None) -> T:
        """Run the action on an idle connection, or on a new one if none is idle and alive."""
        server = self.server
        deadline = self._budget.deadline() if deadline is None else deadline
        if idle := server.take_idle():
            try:
                return self._run_on(idle, server, deadline, action)
            except LockBackendUnavailable as error:
                # A connection that was cut fails at once: there is time for a new one.
                if error.reply_lost or clocks.monotonic() > deadline - self.store_timeout / 2:
                    raise
        half = (deadline - clocks.monotonic()) / 2
        if half <= 0:
            raise LockBackendUnavailable(
                f"DISTLOCK[{self.alias!r}]: no answer in {self.store_timeout:g} seconds"
            )
        new = server.new(half)

        def read_and_run(talk: Conversation) -> T:
            # Read first, which connects: a change that fails later was surely sent.
            talk.read(self._prefix)
            talk.deadline = deadline
            return action(talk)

        return self._run_on(new, server, deadline - half, read_and_run)

    def _run_on(
        self, client: Client, server: Server, deadline: float, action: Callable[[Conversation], T]
    ) -> T:
        talk = Conversation(client, deadline)
        try:
            result = action(talk)
        except BaseException as error:
            client.close()
            if not isinstance(error, client.errors):
                raise
            server.close_idle()  # the others may be cut, too
            lost = talk.unknown and not client.is_refusal(error)
            reason = str(error).strip() or type(error).__name__
            raise LockBackendUnavailable(
                f"DISTLOCK[{self.alias!r}]: {reason}", reply_lost=lost
            ) from error
        server.put_back(client)
        return result


def _digest(semaphore: str) -> bytes:
    """Return a digest of the semaphore: different for each, and of one length for all."""
    return hashlib.sha256(semaphore.encode()).hexdigest().encode()


def _expiry(seconds: float | None) -> int:
    """Return the expiry with which the server keeps an entry for at least that long."""
    if seconds is None or math.ceil(seconds) + CLOCK_LAG > LONGEST_EXPIRY:
        raise ValueError(f"Memcached can't keep anything for {seconds} seconds.")
    return math.ceil(seconds) + CLOCK_LAG


def _end(now: datetime, ttl: float | None) -> datetime:
    return now + timedelta(seconds=ttl or 0)
