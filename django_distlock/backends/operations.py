"""What a store offers to operators: to list locks, release them by force, and pause grants."""

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import ClassVar, Final

from django_distlock.arguments import (
    LONGEST,
    SHORTEST_TTL,
    printable,
    show,
    validate_seconds,
    validate_text,
    validate_whole,
)
from django_distlock.records import (
    LockInfo,
    LockPage,
    LockQuery,
    LockState,
    Pause,
    SearchScope,
)
from django_distlock.semaphores.validation import (
    CONTROL_OR_SURROGATE,
    validate_prefix,
    validate_semaphore,
)
from django_distlock.signals import lock_force_released

from .base import BaseLockBackend

__all__ = [
    "ListingStore",
    "PausingStore",
    "validate_claim",
    "validate_listing",
    "validate_pause",
    "validate_query",
]

logger = logging.getLogger("django_distlock.operations")
"""Not a room_logger(): each line tells of another action of an operator."""

WINDOW: Final = 10_000
"""How many locks a page of a list is made from, at most."""
LARGEST_PAGE: Final = 1_000
"""Locks."""
LONGEST_REASON: Final = 255
LONGEST_SEARCH: Final = 1_000
"""Characters."""


def validate_listing(prefix: str, limit: int | None) -> tuple[str, int | None]:
    """Return the arguments of `held()` as plain values; `TypeError` or `ValueError` if wrong."""
    if limit is not None:
        limit = validate_whole("limit", limit, 0, "None lists all")
    return validate_prefix(prefix), limit


def validate_query(query: LockQuery) -> LockQuery:
    """Return the argument of `page()` with plain values. See `validate_listing()`."""
    if not isinstance(query, LockQuery):
        raise TypeError(f"page() takes a LockQuery, not {show(query)}.")
    search = validate_text("search", query.search)
    if len(search) > LONGEST_SEARCH:
        raise ValueError(f"search has {len(search)} characters, but may have {LONGEST_SEARCH}.")
    if not (query.state is None or isinstance(query.state, LockState)):
        raise TypeError(f"state is a LockState or None, not {show(query.state)}.")
    return LockQuery(
        validate_prefix(query.prefix),
        search,
        query.state,
        validate_whole("page", query.page, 1),
        validate_whole("limit", query.limit, 0, most=LARGEST_PAGE),
    )


def validate_claim(semaphore: str, token: int, by: str) -> tuple[str, int, str]:
    """Return the arguments of `force_release()` as plain values. See `validate_listing()`."""
    return validate_semaphore(semaphore), validate_whole("token", token, 0), _line("by", by)


def validate_pause(
    prefix: str, seconds: float | None, reason: str, by: str
) -> tuple[str, float | None, str, str]:
    """Return the arguments of `pause()` as plain values. See `validate_listing()`."""
    if seconds is not None:
        seconds = validate_seconds(
            "seconds", seconds, SHORTEST_TTL, LONGEST, "None pauses until resume()"
        )
    return validate_prefix(prefix), seconds, _line("reason", reason), _line("by", by)


def _line(name: str, text: str) -> str:
    text = validate_text(name, text)
    if len(text) > LONGEST_REASON:
        raise ValueError(f"{name} has {len(text)} characters, but may have {LONGEST_REASON}.")
    if found := CONTROL_OR_SURROGATE.search(text):
        raise ValueError(f"{name} has no control characters or lone surrogates, not {found[0]!r}.")
    return text


class ListingStore(BaseLockBackend):
    """A store that lists its locks, and releases them by force for an operator."""

    supports_listing: ClassVar[bool] = True
    keeps_expired: ClassVar[bool] = False
    """Whether an expired lock stays listed until `clear_stale()` releases it, and a released lock
    is known until `purge_released()` deletes it."""
    lists_renewals: ClassVar[bool] = False
    """Whether a listed lock tells its last renewal, and whether only `min_hold` keeps it."""
    window: int = WINDOW
    """How many locks `page()` looks at, at most."""

    @abstractmethod
    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        """Return held and stale locks whose semaphore begins with `prefix`, in their order.

        Call `validate_listing()` for the arguments.
        """

    @abstractmethod
    def force_release(self, semaphore: str, token: int, *, by: str = "") -> bool:
        """Take the lock from its holder if its token is still this one. Return whether it was.

        A lock that only `min_hold` keeps is freed, too. Call `validate_claim()` for the arguments,
        and `send_force_released()` after a success. `by` names the operator, for people.
        """

    def send_force_released(self, semaphore: str, token: int, by: str) -> None:
        """Log a forced release, and send `lock_force_released`."""
        logger.warning(
            "The lock on %r, with token %s, was force-released%s.",
            semaphore,
            token,
            f" by {printable(by)}" if by else "",
            extra={"semaphore": semaphore, "backend": self.alias, "token": token, "by": by},
        )
        lock_force_released.send_robust(
            sender=type(self), semaphore=semaphore, backend=self.alias, token=token, by=by
        )

    def find(self, semaphore: str) -> LockInfo | None:
        """Return what is known of one lock; None if it is free, and nothing is known."""
        found = next(iter(self.held(validate_semaphore(semaphore), limit=1)), None)
        return found if found is not None and found.semaphore == semaphore else None

    def page(self, query: LockQuery) -> LockPage:
        """Return a page of the list, made from `window` locks at most.

        If there are more, a search finds only semaphores that begin with its text.
        """
        query = validate_query(query)
        search, scope = query.search.casefold(), SearchScope.SEMAPHORE_AND_HOLDER
        locks = list(self.held(query.prefix, self.window + 1))
        if search and len(locks) > self.window:
            locks = list(self.held(query.prefix + query.search, self.window + 1))
            search, scope = "", SearchScope.PREFIX
        is_capped = len(locks) > self.window
        matching = [lock for lock in locks[: self.window] if contains(lock, search)]
        return page_of(matching, query, is_capped=is_capped, scope=scope)


def contains(lock: LockInfo, search: str) -> bool:
    """Tell whether the text, in lower case, is part of the semaphore or of the holder."""
    return search in lock.semaphore.casefold() or search in lock.holder.casefold()


def page_of(
    locks: Iterable[LockInfo],
    query: LockQuery,
    *,
    is_capped: bool,
    scope: SearchScope = SearchScope.SEMAPHORE_AND_HOLDER,
) -> LockPage:
    """Return the page of these held and stale locks, which are in the order of their semaphores."""
    locks = list(locks)
    counts = Counter(lock.state for lock in locks)
    shown = [lock for lock in locks if query.state in (None, lock.state)]
    first = (query.page - 1) * query.limit
    return LockPage(
        locks=shown[first : first + query.limit],
        found=len(shown),
        counts={state: counts[state] for state in (LockState.HELD, LockState.STALE)},
        is_capped=is_capped,
        scope=scope,
    )


class PausingStore(BaseLockBackend):
    """A store that can grant nothing new for a while, while leases that are held go on.

    The owner that holds a lock still gets its own grant, and may renew and release it. A waiter
    waits on. At the end of the pause it is woken, or tries again by itself.
    """

    @property
    def supports_pausing(self) -> bool:
        return True

    @abstractmethod
    def pause(
        self, prefix: str, seconds: float | None = None, *, reason: str = "", by: str = ""
    ) -> Pause:
        """Grant no lock whose semaphore begins with `prefix`, for `seconds` or until `resume()`.

        An empty prefix pauses all locks. The pause replaces an earlier one of the same prefix. An
        offer that a waiter has not taken ends. A refusal has `Pause.refusal` as its `reason`, and
        the end of the pause as its `expires_at`. Call `validate_pause()` for the arguments.
        """

    @abstractmethod
    def resume(self, prefix: str) -> bool:
        """End the pause of exactly this prefix. Return whether there was one."""

    @abstractmethod
    def pauses(self) -> list[Pause]:
        """Return the pauses in force, in the order of their prefixes."""
