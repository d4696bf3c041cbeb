"""The Redis backend: what is sent for each action, and what an answer means."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any, ClassVar, cast

from django.core import checks
from django.core.checks import CheckMessage

from django_distlock import clocks
from django_distlock.backends.base import (
    AsyncStore,
    ListingStore,
    QueueingStore,
    validate_claim,
    validate_listing,
)
from django_distlock.backends.batches import Outcome
from django_distlock.backends.cache_checks import (
    check_ignored_exceptions,
    check_own_cache,
    validate_store_timeout,
)
from django_distlock.backends.sockets.calls import BLOCKING, IN_LOOP, Calls, run_sync
from django_distlock.backends.sockets.connections import ServerError
from django_distlock.backends.sockets.pools import Budget
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.fields import to_datetime
from django_distlock.records import (
    LOST,
    Claim,
    Grant,
    LockInfo,
    LockState,
    Owner,
    Place,
    Released,
    Renewal,
    RenewalOutcome,
)

from .clients import find_servers
from .listening import Listener
from .nodes import NOT_NOW, Node
from .places import Keys, QueuedPlace
from .scripts import ACQUIRE, FORCE_RELEASE, RELEASE, RENEW, Call
from .servers import at_node

BATCH = 500
"""How many leases a script renews, which takes a server one to two milliseconds."""
SCANNED = 1_000
"""How many keys a server looks at before it lets others have their turn."""

Answers = Iterator[tuple[list[Claim], Any]]
"""Batches of leases, each with what a server answered of it, or why it did not."""


class RedisBackend(ListingStore, QueueingStore, AsyncStore):
    """Keeps locks in Redis: by the connections of a Django cache, or of a client of redis-py.

    `cache` is the alias of a cache by django-redis or of Django's own RedisCache; `client` the
    dotted path of a callable that returns a redis-py client, which may be a RedisCluster. The
    cache's KEY_PREFIX stands before each key; its VERSION does not, since a deployment with another
    one would split each lock. A call ends within `store_timeout` seconds, whatever the cache's own
    settings are; a handshake of TLS has as many again.

    It does not guarantee that a grant survives what makes the server forget: a failover to a
    replica that hasn't received it, a restart, FLUSHDB, an eviction. The token rises all the same.
    """

    supports_fencing: ClassVar[bool] = True
    supports_unlimited_ttl: ClassVar[bool] = True

    def __init__(
        self,
        alias: str,
        *,
        cache: str | None = None,
        client: str | None = None,
        ttl: float | None = 60,
        store_timeout: float = 2,
        guard_commits: bool = True,
    ) -> None:
        super().__init__(alias, ttl=ttl, guard_commits=guard_commits)
        self.store_timeout = validate_store_timeout(alias, store_timeout)
        self.cache = cache
        self._budget = Budget(store_timeout)
        self._servers, prefix = find_servers(alias, cache, client, store_timeout)
        self._start = f"{prefix}distlock:{{"

    def time_budget(self) -> Budget:
        return self._budget

    def new_deadline(self) -> float:
        return clocks.monotonic() + self.store_timeout

    def acquire(self, semaphore: str, owner: str, ttl: float | None, holder: str) -> Grant | None:
        call, undo = self._acquisition(semaphore, owner, ttl, holder)
        return _grant(self._call(call, undo), ttl)

    async def aacquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str, *, deadline: float
    ) -> Grant | None:
        """See acquire()."""
        call, undo = self._acquisition(semaphore, owner, ttl, holder)
        return _grant(await self._acall(call, deadline, undo), ttl)

    def _acquisition(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> tuple[Call, Call]:
        """Return what acquires, and what undoes that."""
        keys = self._keys(semaphore)
        acquire = Call(ACQUIRE, keys, (owner, _milliseconds(ttl), _quote(holder)))
        return acquire, Call(RELEASE, keys, (owner, 0))

    def join(
        self,
        semaphore: str,
        owner: str,
        holder: str,
        wake: Callable[[], object],
    ) -> Place | None:
        keys, waiter = self._keys(semaphore), _waiter(owner, holder)
        return run_sync(self._join(BLOCKING, keys, waiter, wake, self._budget.deadline()))

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
        keys, waiter = self._keys(semaphore), _waiter(owner, holder)
        return await self._join(IN_LOOP, keys, waiter, wake, deadline)

    async def _join(
        self, calls: Calls, keys: Keys, waiter: str, wake: Callable[[], object], deadline: float
    ) -> Place | None:
        return await at_node(
            calls,
            self._servers,
            keys[0],
            deadline,
            lambda node: Listener.of(node).join(calls, keys, waiter, wake, deadline),
        )

    def leave(self, place: Place, granted: bool) -> None:
        cast("QueuedPlace", place).leave(granted=granted, deadline=self._budget.deadline())

    async def aleave(self, place: Place, granted: bool, *, deadline: float) -> None:
        """See leave()."""
        await cast("QueuedPlace", place).aleave(granted=granted, deadline=deadline)

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        outcome = Outcome()
        by_node = self._batches_by_node(leases)
        # Those that were silent last time have one time together, after the others have theirs.
        share = self.store_timeout / max(1, sum(node.silent for node in by_node))
        for node in sorted(by_node, key=attrgetter("silent")):
            deadline = self._budget.deadline()
            if node.silent:
                deadline = min(deadline, clocks.monotonic() + share)
            for batch, answer in self._renew_at(node, by_node[node], deadline):
                if isinstance(answer, LockBackendUnavailable):
                    outcome.failed(batch, answer)
                else:
                    outcome.answered(_renewals(batch, answer))
        return outcome.result()

    def _renew_at(self, node: Node, batches: list[list[Claim]], deadline: float) -> Answers:
        """Renew all in one round trip, but what the node refuses."""
        commands = [self._renewal(batch).command() for batch in batches]
        try:
            answers = node.ask_all(commands, deadline)
            node.silent = False
        except LockBackendUnavailable as error:
            node.silent = True
            self._servers.suspect()
            yield from ((batch, error) for batch in batches)
            return
        for batch, answer in zip(batches, answers, strict=True):
            if isinstance(answer, ServerError):
                yield from self._renew_again(node, batch, deadline)
            else:
                yield batch, answer

    def _renew_again(self, node: Node, batch: list[Claim], deadline: float) -> Answers:
        """Renew what was refused: perhaps by another node, and else each lease by itself."""
        try:
            yield batch, self._call(self._renewal(batch), deadline=deadline)
        except LockBackendUnavailable as error:
            refusal = error.__cause__
            if not isinstance(refusal, ServerError) or refusal.code in NOT_NOW or len(batch) == 1:
                yield batch, error
                return
            if refusal.code == "CROSSSLOT":
                self._servers.group_by_slot()
            yield from self._renew_at(node, [[lease] for lease in batch], deadline)

    async def arenew(self, leases: Sequence[Claim], *, deadline: float) -> dict[str, Renewal]:
        """See renew()."""
        renewals: dict[str, Renewal] = {}
        for batch in chain.from_iterable(self._batches_by_node(leases).values()):
            renewals |= _renewals(batch, await self._acall(self._renewal(batch), deadline))
        return renewals

    def _renewal(self, leases: list[Claim]) -> Call:
        keys = [self._key(lease.semaphore) for lease in leases]
        owners = [(lease.owner, _milliseconds(lease.ttl)) for lease in leases]
        return Call(RENEW, keys, [*chain.from_iterable(owners)])

    def _batches_by_node(self, leases: Sequence[Claim]) -> dict[Node, list[list[Claim]]]:
        """Return those together that one script may be given: of one slot, in a cluster."""
        together = defaultdict[tuple[Node, int], list[Claim]](list)
        for lease in leases:
            key = self._key(lease.semaphore)
            together[self._servers.of(key), self._servers.slot(key)].append(lease)
        batches = defaultdict[Node, list[list[Claim]]](list)
        for (node, _), claims in together.items():
            batches[node] += [claims[at : at + BATCH] for at in range(0, len(claims), BATCH)]
        return batches

    def release(self, lease: Claim, keep: float = 0) -> Released:
        return Released(self._call(self._release(lease, keep)))

    async def arelease(self, lease: Claim, keep: float = 0, *, deadline: float) -> Released:
        """See release()."""
        return Released(await self._acall(self._release(lease, keep), deadline))

    def _release(self, lease: Claim, keep: float) -> Call:
        return Call(RELEASE, self._keys(lease.semaphore), (lease.owner, _milliseconds(keep)))

    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        prefix, limit = validate_listing(prefix, limit)
        pattern = _escape(self._start + _encode(prefix)) + "*}"
        key, deadline = self._key(prefix), self.new_deadline()
        found = run_sync(
            at_node(BLOCKING, self._servers, key, deadline, lambda _: self._list(pattern))
        )
        yield from sorted(found.values(), key=lambda lock: lock.semaphore)[:limit]

    async def _list(self, pattern: str) -> dict[str, LockInfo]:
        # A server may list a key twice.
        return {
            lock.semaphore: lock
            for node in self._servers.all()
            for lock in self._listed(node, pattern)
        }

    def _listed(self, node: Node, pattern: str) -> Iterator[LockInfo]:
        """Yield the locks of a server, looking at some of its keys at a time."""
        cursor: bytes | int = 0
        while True:
            deadline = self.new_deadline()
            scan = ("SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED)
            [answer] = node.ask_all([scan], deadline)
            node.raise_for(answer)
            cursor, keys = answer
            if keys:
                yield from self._described(node, keys, deadline)
            if not int(cursor):
                return

    def _described(self, node: Node, keys: list[bytes], deadline: float) -> Iterator[LockInfo]:
        commands = [(name, key) for key in keys for name in ("GET", "PTTL")]
        *answers, time = node.ask_all([*commands, ("TIME",)], deadline)
        for (name, key), answer in zip(commands, answers, strict=True):
            node.raise_for(answer, f" {name} {key!r}")
        node.raise_for(time)
        seconds, microseconds = time
        now = int(seconds) * 1_000_000 + int(microseconds)
        for key, value, left in zip(keys, answers[::2], answers[1::2], strict=True):
            if value is not None and left != GONE:
                yield self._info(key, value, left, now)

    def _info(self, key: bytes, value: bytes, left: int, now: int) -> LockInfo:
        try:
            described = json.loads(value)
            token, holder, acquired_at = map(described.get, ("token", "holder", "acquired_at"))
            since = to_datetime(acquired_at)
        except (AttributeError, TypeError, ValueError) as error:
            raise LockBackendUnavailable(f"{key!r} has something else than a lock.") from error
        return LockInfo(
            semaphore=_decode(key.decode().removeprefix(self._start).removesuffix("}")),
            state=LockState.HELD,
            token=token,
            holder=holder,
            acquired_at=since,
            expires_at=None if left == UNLIMITED else to_datetime(now + left * 1000),
            seen_at=to_datetime(now),
        )

    def force_release(self, semaphore: str, token: int) -> bool:
        semaphore, token = validate_claim(semaphore, token)
        released = bool(self._call(Call(FORCE_RELEASE, self._keys(semaphore), (token,))))
        if released:
            self.send_force_released(semaphore, token)
        return released

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
        """Yield a warning if the server may forget locks that are held."""
        policy = node.eviction_policy()
        if policy != "noeviction":
            yield checks.Warning(
                f"DISTLOCK[{self.alias!r}]: {node} has maxmemory-policy {policy or 'unknown'!r}: "
                "where memory is short, a server that evicts grants what somebody holds.",
                hint="Let a server for locks have maxmemory-policy noeviction. Where CONFIG isn't "
                "allowed, see to that, and silence this.",
                id="distlock.W004",
            )

    @property
    def keeps_open(self) -> bool:
        return True

    def close(self) -> None:
        for node in self._servers.all():
            node.close()

    def _call(self, call: Call, undo: Call | None = None, deadline: float | None = None) -> Any:
        return run_sync(self._run(BLOCKING, call, deadline or self._budget.deadline(), undo))

    async def _acall(self, call: Call, deadline: float, undo: Call | None = None) -> Any:
        return await self._run(IN_LOOP, call, deadline, undo)

    async def _run(self, calls: Calls, call: Call, deadline: float, undo: Call | None) -> Any:
        return await at_node(
            calls,
            self._servers,
            call.keys[0],
            deadline,
            lambda node: node.run(calls, call, deadline, undo),
        )

    def _key(self, semaphore: str) -> str:
        return f"{self._start}{_encode(semaphore)}}}"

    def _keys(self, semaphore: str) -> tuple[str, str, str]:
        """Return where the lock is, its last token, and who waits for it: all in one slot."""
        lock = self._key(semaphore)
        return lock, f"{lock}:token", f"{lock}:queue"


UNLIMITED, GONE = -1, -2
"""What Redis says of the time that is left to a key that has no end, or isn't there."""


def _encode(semaphore: str) -> str:
    """Encode braces, between which a cluster finds what tells the slot, and nothing else."""
    if "%" in semaphore or "{" in semaphore or "}" in semaphore:
        return semaphore.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return semaphore


def _decode(encoded: str) -> str:
    return encoded.replace("%7D", "}").replace("%7B", "{").replace("%25", "%")


def _escape(text: str) -> str:
    """Let a pattern take the text literally."""
    return "".join(f"\\{each}" if each in "*?[]^-\\" else each for each in text)


@lru_cache
def _quote(holder: str) -> str:
    return json.dumps(holder)


def _milliseconds(seconds: float | None) -> int | str:
    """Return the least that is not shorter; nothing means without end."""
    return "" if seconds is None else math.ceil(seconds * 1000)


def _waiter(owner: str, holder: str) -> str:
    """Return how a waiter stands in the queue, behind his process and number."""
    return f"{owner} {_quote(holder)}"


def _grant(answer: Any, ttl: float | None) -> Grant | None:
    if answer is None:
        return None
    token, at = map(int, answer)
    return Grant(token, to_datetime(at), _end(at, ttl))


def _renewals(leases: list[Claim], answer: Any) -> dict[str, Renewal]:
    at, renewed = answer
    return {
        Owner(lease.owner): (
            Renewal(RenewalOutcome.RENEWED, _end(int(at), lease.ttl)) if is_ours else LOST
        )
        for lease, is_ours in zip(leases, renewed, strict=True)
    }


def _end(at: int, ttl: float | None) -> datetime | None:
    return None if ttl is None else to_datetime(at) + timedelta(seconds=ttl)
