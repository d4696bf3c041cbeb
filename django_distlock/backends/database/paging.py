"""A page of the list of locks, found by a few queries that look at a window of rows."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from django.db.models import Count, Q

from django_distlock.models import LockQuerySet
from django_distlock.records import LockQuery, LockState, SearchScope
from django_distlock.semaphores.validation import InvalidSemaphore, validate_prefix

LISTED: Final = (LockState.HELD, LockState.STALE)
"""The states that a query without a state asks for."""

Locks = Callable[[str], LockQuerySet]
"""Returns the locks whose semaphore begins with a prefix, in their order."""


class FoundPage(NamedTuple):
    """The rows of a page, and what there is on all pages. See LockPage."""

    rows: LockQuerySet
    found: int
    counts: Mapping[LockState, int]
    is_capped: bool
    scope: SearchScope = SearchScope.SEMAPHORE_AND_HOLDER


def find_page(locks: Locks, query: LockQuery, size: int) -> FoundPage:
    """Return the page, from a window of the first `size` rows that have an owner.

    A page of released locks is from the first rows of any state, because no index has them alone.
    Each query is in the order of an index, and has a limit: with other conditions, PostgreSQL may
    prefer to read the whole table, above all as long as it has no statistics.
    """
    if not query.search and query.state is not LockState.RELEASED:
        return _page_by_database(_rows(locks, query.prefix), query, size)
    rows = _rows(locks, query.prefix, query.state)
    is_capped = _exceeds(rows, size)
    if not (query.search and is_capped):
        return _page_of_some(locks, rows, query, size, is_capped=is_capped)
    rows = _rows(locks, query.prefix + query.search, query.state)
    page = _page_of_some(locks, rows, query, size, is_capped=_exceeds(rows, size), search=False)
    return page._replace(scope=SearchScope.PREFIX)


def _states(query: LockQuery) -> tuple[LockState, ...]:
    return (query.state,) if query.state else LISTED


def _rows(locks: Locks, prefix: str, state: LockState | None = None) -> LockQuerySet:
    """Return the rows whose first ones are the window."""
    rows = locks(prefix)
    try:
        validate_prefix(prefix)
    except InvalidSemaphore:
        return rows.none()
    return rows if state is LockState.RELEASED else rows.with_owner()


def _exceeds(rows: LockQuerySet, size: int) -> bool:
    """Return whether there are more rows; an index alone can answer that."""
    return bool(rows.values_list("semaphore")[size : size + 1])


def _page_by_database(rows: LockQuerySet, query: LockQuery, size: int) -> FoundPage:
    """Let the database count the states in the window.

    So many of a state are in the window, and the first ones of that state in the table are these.
    """
    window: Any = rows.with_state()[:size]
    counted = window.aggregate(
        **{state.name: Count("pk", filter=Q(state=state)) for state in LockState}
    )
    counts = Counter({LockState[name]: count for name, count in counted.items()})
    found = sum(counts[state] for state in _states(query))
    first = (query.page - 1) * query.limit
    match query.state:
        case LockState.HELD:
            rows_in_state = rows.held()
        case LockState.STALE:
            rows_in_state = rows.stale()
        case _:
            rows_in_state = rows.unreleased()
    page = rows_in_state[first : min(first + query.limit, max(first, found))]
    is_capped = counts.total() == size and _exceeds(rows, size)
    return FoundPage(page, found, counts, is_capped)


def _page_of_some(
    locks: Locks,
    rows: LockQuerySet,
    query: LockQuery,
    size: int,
    *,
    is_capped: bool,
    search: bool = True,
) -> FoundPage:
    """Look at each row of the window: for a text, which no database finds as Python does."""
    text = query.search.casefold() if search else ""
    window: Any = rows.with_state()[:size]
    found = [
        (semaphore, LockState(state))
        for semaphore, holder, state in window.values_list("semaphore", "holder", "state")
        if text in semaphore.casefold() or text in holder.casefold()
    ]
    shown = [semaphore for semaphore, state in found if state in _states(query)]
    first = (query.page - 1) * query.limit
    page = locks("").filter(pk__in=shown[first : first + query.limit])
    return FoundPage(page, len(shown), Counter(state for _, state in found), is_capped)
