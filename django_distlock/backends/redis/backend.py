"""The lock backend on Redis."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, cast

from django.core import checks
from django.core.checks import CheckMessage

from django_distlock import clocks
from django_distlock.backends.base import AsyncStore, QueueingStore
from django_distlock.backends.cache_checks import (
    check_ignored_exceptions,
    check_own_cache,
)
from django_distlock.backends.sockets.calls import BLOCKING, IN_LOOP, Calls
from django_distlock.backends.sync_driver import run_sync
from django_distlock.backends.time_budget import Budget, validate_store_timeout
from django_distlock.records import Claim, Grant, Place, Refusal, Released, Renewal

from .clients import find_servers
from .keys import KeySpace
from .listening import Listener
from .messages import (
    acquire_call,
    read_grant,
    read_renewals,
    release_call,
    waiter,
)
from .nodes import Node
from .operations import OperatedStore
from .renewal import Renewer
from .scripts import Call
from .servers import at_node, call_at_node

if TYPE_CHECKING:
    from .places import QueuedPlace


class RedisBackend(OperatedStore, QueueingStore, AsyncStore):
    """A store in Redis, on the server of a Django cache or of a redis-py client.

    `cache` is the alias of a cache of django-redis, or of Django's own `RedisCache`. `client` is
    the dotted path of a callable that returns a redis-py client, also a `RedisCluster`. Each key
    begins with the cache's `KEY_PREFIX`, but not with its `VERSION`: a deployment with another one
    would split each lock. A call ends within `store_timeout` seconds, whatever the cache's own
    settings are; a TLS handshake may take as long again.

    **Not guaranteed:** that a grant survives the loss of the server's data, by a failover to a
    replica that hasn't received it, a restart, `FLUSHDB`, or an eviction. Even then, tokens rise,
    unless the server's clock steps back, too.
    """

    supports_fencing: ClassVar[bool] = True
    tells_holder: ClassVar[bool] = True
    lists_renewals: ClassVar[bool] = True
    supports_unlimited_ttl: ClassVar[bool] = True
    store_timeout: float

    def __init__(
        self,
        alias: str,
        *,
        cache: str | None = None,
        client: str | None = None,
        ttl: float | None = 60,
        store_timeout: float = 2,
        guard_commits: bool = True,
        events: bool = False,
    ) -> None:
        super().__init__(alias, ttl=ttl, guard_commits=guard_commits, events=events)
        self.store_timeout = validate_store_timeout(alias, store_timeout)
        self.cache = cache
        self._budget = Budget(store_timeout)
        self._servers, prefix = find_servers(alias, cache, client, store_timeout)
        self._keys = KeySpace(prefix)
        self._renewer = Renewer(self._servers, self._keys)

    def time_budget(self) -> Budget:
        return self._budget

    def new_deadline(self) -> float:
        return clocks.monotonic() + self.store_timeout

    def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | Refusal:
        call, undo = acquire_call(self._keys.all(semaphore), owner, ttl, holder)
        return read_grant(self._call(call, undo), ttl)

    async def aacquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str, *, deadline: float
    ) -> Grant | Refusal:
        """See acquire()."""
        call, undo = acquire_call(self._keys.all(semaphore), owner, ttl, holder)
        return read_grant(await self._acall(call, deadline, undo), ttl)

    def join(
        self, semaphore: str, owner: str, holder: str, wake: Callable[[], object]
    ) -> Place | None:
        text, deadline = waiter(owner, holder), self._budget.deadline()
        return run_sync(self._join(BLOCKING, semaphore, text, wake, deadline))

    async def ajoin(
        self,
        semaphore: str,
        owner: str,
        holder: str,
        wake: Callable[[], object],
        *,
        deadline: float,
    ) -> Place | None:
        """See join()."""
        return await self._join(IN_LOOP, semaphore, waiter(owner, holder), wake, deadline)

    async def _join(
        self, calls: Calls, semaphore: str, text: str, wake: Callable[[], object], deadline: float
    ) -> Place | None:
        keys = self._keys.all(semaphore)
        return await at_node(
            calls,
            self._servers,
            keys[0],
            deadline,
            lambda node: Listener.of(node).join(calls, keys, text, wake, deadline),
        )

    def leave(self, place: Place, granted: bool) -> None:
        cast("QueuedPlace", place).leave(granted=granted, deadline=self._budget.deadline())

    async def aleave(self, place: Place, granted: bool, *, deadline: float) -> None:
        """See leave()."""
        await cast("QueuedPlace", place).aleave(granted=granted, deadline=deadline)

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        return self._renewer.renew(leases, self._budget)

    async def arenew(self, leases: Sequence[Claim], *, deadline: float) -> dict[str, Renewal]:
        """See renew()."""
        renewals: dict[str, Renewal] = {}
        batches = self._renewer.batches_by_node(leases)
        for batch in chain.from_iterable(batches.values()):
            call = self._renewer.call_for(batch)
            renewals |= read_renewals(batch, await self._acall(call, deadline))
        return renewals

    def release(self, lease: Claim, keep: float = 0) -> Released:
        call = release_call(self._keys.all(lease.semaphore), lease.owner, keep)
        return Released(self._call(call))

    async def arelease(self, lease: Claim, keep: float = 0, *, deadline: float) -> Released:
        """See release()."""
        call = release_call(self._keys.all(lease.semaphore), lease.owner, keep)
        return Released(await self._acall(call, deadline))

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        if self.cache is None:
            return []
        return [
            *check_own_cache(self.alias, self.cache),
            *check_ignored_exceptions(self.alias, self.cache),
        ]

    def check_deployment(self) -> list[CheckMessage]:
        return [message for node in self._servers.all() for message in self._check_eviction(node)]

    def _check_eviction(self, node: Node) -> Iterator[CheckMessage]:
        """Yield a warning if the server may evict locks that are held."""
        policy = node.eviction_policy()
        if policy != "noeviction":
            yield checks.Warning(
                f"DISTLOCK[{self.alias!r}]: {node} has maxmemory-policy {policy or 'unknown'!r}: "
                "where memory is short, it may evict a lock that is held, and grant it again.",
                hint="Give a server for locks maxmemory-policy noeviction. Where CONFIG isn't "
                "allowed, make sure of that, and silence this.",
                id="distlock.W004",
            )

    @property
    def keeps_open(self) -> bool:
        return True

    def close(self) -> None:
        for node in self._servers.all():
            node.close()

    def _call(self, call: Call, undo: Call | None = None) -> Any:
        deadline = self._budget.deadline()
        return run_sync(call_at_node(BLOCKING, self._servers, call, deadline, undo))

    async def _acall(self, call: Call, deadline: float, undo: Call | None = None) -> Any:
        return await call_at_node(IN_LOOP, self._servers, call, deadline, undo)
