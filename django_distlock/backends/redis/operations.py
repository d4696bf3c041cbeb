"""What the Redis backend offers to operators."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, TypeVar

from django_distlock.backends.operations import (
    ListingStore,
    PausingStore,
    contains,
    page_of,
    validate_claim,
    validate_listing,
    validate_pause,
    validate_query,
)
from django_distlock.backends.sockets.calls import BLOCKING
from django_distlock.backends.sockets.connections import ServerError
from django_distlock.backends.sync_driver import run_sync
from django_distlock.exceptions import LockBackendUnavailable, LockNotSupported
from django_distlock.records import (
    LockInfo,
    LockPage,
    LockQuery,
    LockState,
    Pause,
    SearchScope,
    WaiterInfo,
)
from django_distlock.semaphores.validation import validate_prefix, validate_semaphore

from .keys import KeySpace
from .listing import DESCRIBED, Listing
from .messages import (
    describe_call,
    force_release_call,
    pause_call,
    pauses_call,
    read_lock,
    read_pause,
    read_pauses,
    read_waiters,
    resume_call,
    waiters_call,
)
from .nodes import Node
from .scripts import Call
from .servers import Servers, at_node

T = TypeVar("T")

FEW: Final = 1_000
"""Up to so many locks, a search reads all of them, and so finds holders."""


class OperatedStore(ListingStore, PausingStore):
    """The part of RedisBackend that operators use."""

    _servers: Servers
    _keys: KeySpace

    @abstractmethod
    def _call(self, call: Call, undo: Call | None = None) -> Any:
        """Run a script where its keys are."""

    @abstractmethod
    def new_deadline(self) -> float:
        """Return when a call that is made now must have ended."""

    @property
    def _listing(self) -> Listing:
        return Listing(self._servers, self._keys)

    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        prefix, limit = validate_listing(prefix, limit)
        return islice(self._held(prefix), limit)

    def _held(self, prefix: str) -> Iterator[LockInfo]:
        semaphores, _ = self._find(prefix)
        for at in range(0, len(semaphores), DESCRIBED):
            yield from self._describe(semaphores[at : at + DESCRIBED])

    def _describe(self, semaphores: list[str]) -> list[LockInfo]:
        """Return those of these locks that still exist."""
        if not semaphores:
            return []
        key = self._keys.lock(semaphores[0])
        locks = self._at_node(key, lambda _: self._listing.describe(semaphores))
        return [locks[name] for name in semaphores if name in locks]

    def find(self, semaphore: str) -> LockInfo | None:
        semaphore = validate_semaphore(semaphore)
        answer = self._call(describe_call(self._keys.all(semaphore)))
        return None if answer is None else read_lock(semaphore, answer)

    def waiters(self, semaphore: str) -> list[WaiterInfo] | None:
        keys = self._keys.all(validate_semaphore(semaphore))
        return read_waiters(self._call(waiters_call(keys)))

    def page(self, query: LockQuery) -> LockPage:
        """Return a page of the list, whose locks alone are read.

        It is made from `window` locks at most, and from those that are found within a call's time.
        Up to FEW locks are all read for a search, and so it finds holders, too.
        """
        query = validate_query(query)
        semaphores, is_capped = self._find_some(query.prefix)
        search, scope = query.search.casefold(), SearchScope.SEMAPHORE
        if search and len(semaphores) <= FEW and not is_capped:
            locks = [lock for lock in self._describe(semaphores) if contains(lock, search)]
            return page_of(locks, query, is_capped=False)
        if search and is_capped:
            semaphores, is_capped = self._find_some(query.prefix + query.search)
            search, scope = "", SearchScope.PREFIX
        if search:
            semaphores = [name for name in semaphores if search in name.casefold()]
        shown = [] if query.state not in (None, LockState.HELD) else semaphores
        first = (query.page - 1) * query.limit
        return LockPage(
            locks=self._describe(shown[first : first + query.limit]),
            found=len(shown),
            counts={LockState.HELD: len(semaphores), LockState.STALE: 0},
            is_capped=is_capped,
            scope=scope,
        )

    def _find_some(self, prefix: str) -> tuple[list[str], bool]:
        found, is_capped = self._find(prefix, self.window, self.new_deadline())
        return found[: self.window], is_capped

    def _find(self, prefix: str, *limits: float) -> tuple[list[str], bool]:
        """See Listing.semaphores()."""
        key = self._keys.lock(prefix)
        return self._at_node(key, lambda _: self._listing.semaphores(prefix, *limits))

    def force_release(self, semaphore: str, token: int, *, by: str = "") -> bool:
        semaphore, token, by = validate_claim(semaphore, token, by)
        released = bool(self._call(force_release_call(self._keys.all(semaphore), token)))
        if released:
            self.send_force_released(semaphore, token, by)
        return released

    @property
    def supports_pausing(self) -> bool:
        return not self._servers.have_slots

    def pause(
        self, prefix: str, seconds: float | None = None, *, reason: str = "", by: str = ""
    ) -> Pause:
        prefix, seconds, reason, by = validate_pause(prefix, seconds, reason, by)
        call = pause_call(self._keys, prefix, seconds, reason, by)
        return read_pause(prefix, self._pausing(call))

    def resume(self, prefix: str) -> bool:
        prefix = validate_prefix(prefix)
        return bool(self._pausing(resume_call(self._keys, prefix)))

    def pauses(self) -> list[Pause]:
        if not self.supports_pausing:
            return []
        return read_pauses(self._keys, self._call(pauses_call(self._keys)))

    def _pausing(self, call: Call) -> Any:
        """Run a script that is given keys of several slots, or raise LockNotSupported."""
        if self.supports_pausing:
            try:
                return self._call(call)
            except LockBackendUnavailable as error:
                refusal = error.__cause__
                if not isinstance(refusal, ServerError) or refusal.code != "CROSSSLOT":
                    raise
                self._servers.group_by_slot()
        raise LockNotSupported(
            f"DISTLOCK[{self.alias!r}]: a Redis Cluster can't pause locks: a grant would have to "
            "look at the pauses, which another node may have."
        )

    def _at_node(self, key: str, ask: Callable[[Node], T]) -> T:
        """Return what the node that has the key answers, wherever a cluster has moved it."""

        async def answer(node: Node) -> T:
            return ask(node)

        return run_sync(at_node(BLOCKING, self._servers, key, self.new_deadline(), answer))
