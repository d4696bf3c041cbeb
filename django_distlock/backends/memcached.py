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
from django_distlock.records import LOST, Claim, Grant, Released, Renewal, RenewalOutcome

from .batches import Outcome
from .cache_checks import PYMEMCACHE, check_own_cache, find_cache, validate_store_timeout
from .memcached_clients import Client, Conversation, Server, shared
from .sockets.pools import Budget

T = TypeVar("T")

LONGEST_EXPIRY: Final = 30 * 24 * 60 * 60
"""Seconds. Memcached takes more for a date."""
STEPS: Final = 2
"""Seconds that the server is asked for besides, since its clock lags behind by up to that.

It shows whole seconds, and is set about once a second: sometimes it passes over one.
"""
LONG_AGO: Final = LONGEST_EXPIRY + 1
"""Such a date, in 1970: what is stored until then is gone. Not every client can say -1."""
LONGEST_KEY: Final = 250
"""Bytes."""
KEPT: Final = "kept"
"""The owner of what is nobody's any more, but is to be nobody else's for a while."""


class MemcachedBackend(BaseLockBackend):
    """Keeps locks on the one server of the cache that CACHES has under the alias `cache`.

    It does not guarantee that a lock is kept until its lease ends. The server forgets all when it
    is restarted or flushed, and may evict what is held when its memory is full, unless it runs with
    `-M`; the lock is then granted again at once. The holder is told when its lease is renewed
    next. There is no fencing token against that.

    Nor can it list locks, so the admin and `clear_stale_locks` don't show them. A ttl is a number
    of whole seconds, up to 30 days. The server is asked for two more, by which its clock may lag
    behind: a lock whose holder died is free up to two seconds late, after `ttl` + 2 seconds.

    Of the server's clock only that rate counts; it stands still while the server is suspended. It
    can't be read to less than a second, so `acquired_at` and `expires_at` of a lease are by the
    holder's own clock. They are for people.

    A call ends within `store_timeout` seconds, whatever the cache's own settings say.
    """

    shortest_ttl = 1
    longest_ttl = LONGEST_EXPIRY - STEPS

    def __init__(
        self,
        alias: str,
        *,
        cache: str,
        ttl: float | None = 60,
        store_timeout: float = 2,
        guard_commits: bool = True,
    ) -> None:
        super().__init__(alias, ttl=ttl, guard_commits=guard_commits)
        self.cache = cache
        self.store_timeout = validate_store_timeout(alias, store_timeout)
        self._budget = Budget(store_timeout)
        found = find_cache(alias, cache, [PYMEMCACHE])
        servers = found.client_servers  # type: ignore[attr-defined]
        if len(servers) != 1:
            raise InvalidLockBackend(
                f"DISTLOCK[{alias!r}]: cache {cache!r} has {len(servers)} servers in its LOCATION, "
                "but locks need one: when the client takes one for dead, or is told of another, "
                "semaphores move to other servers, which grant them again."
            )
        self._prefix = self._validate_prefix(found)
        # Settings that a test overrides are another server.
        self._server_key = cache, repr(caches.settings[cache]), self.store_timeout
        self._make_server = lambda: Server(found)
        try:
            Server(found).new(self.store_timeout).close()  # without having connected
        except Exception as error:
            raise InvalidLockBackend(
                f"DISTLOCK[{alias!r}]: cache {cache!r} makes no client: {error!r}"
            ) from error

    def _validate_prefix(self, cache: BaseCache) -> bytes:
        """Return what all keys begin with: not the cache's VERSION, which would split locks."""
        options: dict[str, Any] = cache._options  # type: ignore[attr-defined]
        clients = options.get("key_prefix") or b""
        prefix = clients.encode() if isinstance(clients, str) else clients
        prefix += f"{cache.key_prefix}:distlock:".removeprefix(":").encode()
        longest = prefix + _digest("")
        if len(longest) > LONGEST_KEY or any(byte <= 32 or byte == 127 for byte in longest):
            raise InvalidLockBackend(
                f"DISTLOCK[{self.alias!r}]: cache {self.cache!r} has KEY_PREFIX "
                f"{cache.key_prefix!r}, with which keys of locks take {len(longest)} bytes: "
                f"Memcached has {LONGEST_KEY}, and no spaces or control characters in them."
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

    def acquire(self, semaphore: str, owner: str, ttl: float | None, holder: str) -> Grant | None:
        key, expiry, now = self._key(semaphore), _expiry(ttl), datetime.now(UTC)
        if not self._talk(lambda talk: talk.acquire(key, owner, expiry)):
            return None
        return Grant(None, now, _end(now, ttl))

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        """See BaseLockBackend.renew(). Each answer shows that the server lives.

        When it has been silent for `store_timeout`, no other lease is asked for.
        """
        outcome, left = Outcome(), list(reversed(leases))
        deadline = self._budget.deadline()

        def renew_all(talk: Conversation) -> None:
            nonlocal deadline
            while left:
                lease, now = left[-1], datetime.now(UTC)
                key, expiry = self._key(lease.semaphore), _expiry(lease.ttl)
                held = talk.replace(key, lease.owner, lease.owner, expiry)
                renewed = Renewal(RenewalOutcome.RENEWED, _end(now, lease.ttl))
                outcome.answered({lease.owner: renewed if held else LOST})
                left.pop()
                deadline = self._budget.deadline()
                talk.continue_until(deadline)

        while left:
            try:
                self._talk(renew_all, deadline)
            except LockBackendUnavailable as error:
                silent = clocks.monotonic() >= deadline
                outcome.failed([left.pop() for _ in range(len(left) if silent else 1)], error)
        return outcome.result()

    def release(self, lease: Claim, keep: float = 0) -> Released:
        key, expiry = self._key(lease.semaphore), _expiry(keep) if keep else LONG_AGO
        released = self._talk(lambda talk: talk.replace(key, lease.owner, KEPT, expiry))
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
        """Return the server with its idle connections, which the threads of this process share."""
        return shared(self._server_key, self._make_server)

    def _talk(self, action: Callable[[Conversation], T], deadline: float | None = None) -> T:
        """Do it on an idle connection or, if there is none or it turns out cut, on a new one."""
        server = self.server
        deadline = self._budget.deadline() if deadline is None else deadline
        if idle := server.take():
            try:
                return self._talk_on(idle, server, deadline, action)
            except LockBackendUnavailable as error:
                # What was cut is noticed at once.
                if error.reply_lost or clocks.monotonic() > deadline - self.store_timeout / 2:
                    raise
        half = (deadline - clocks.monotonic()) / 2
        if half <= 0:
            raise LockBackendUnavailable(
                f"DISTLOCK[{self.alias!r}]: no answer in {self.store_timeout:g} seconds"
            )
        new = server.new(half)

        def ask_and_do(talk: Conversation) -> T:
            # First a question: of a change it is then known that it was sent.
            talk.read(self._prefix)
            talk.continue_until(deadline)
            return action(talk)

        return self._talk_on(new, server, deadline - half, ask_and_do)

    def _talk_on(
        self, client: Client, server: Server, deadline: float, action: Callable[[Conversation], T]
    ) -> T:
        talk = Conversation(client, deadline)
        try:
            result = action(talk)
        except BaseException as error:
            client.close()
            if not isinstance(error, client.errors):
                raise
            server.close_idle()  # they may be cut, too
            lost = talk.unknown and not client.is_refusal(error)
            reason = str(error).strip() or type(error).__name__
            raise LockBackendUnavailable(
                f"DISTLOCK[{self.alias!r}]: {reason}", reply_lost=lost
            ) from error
        server.give_back(client)
        return result


def _digest(semaphore: str) -> bytes:
    """Return what takes the same space for all semaphores, and is another one for each."""
    return hashlib.sha256(semaphore.encode()).hexdigest().encode()


def _expiry(seconds: float | None) -> int:
    """Return what to ask the server for, so that it keeps something for that long at least."""
    if seconds is None or math.ceil(seconds) + STEPS > LONGEST_EXPIRY:
        raise ValueError(f"Memcached can't keep anything for {seconds} seconds.")
    return math.ceil(seconds) + STEPS


def _end(now: datetime, ttl: float | None) -> datetime:
    return now + timedelta(seconds=ttl or 0)
