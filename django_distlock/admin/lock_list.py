"""A page of a store's list of locks: rows, counts, and links to other pages."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from django.core.paginator import Paginator
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from django_distlock.records import LockPage, LockState, SearchScope
from django_distlock.semaphores.validation import validate_prefix

from .addresses import STATES, Addresses, ListAddress
from .shown_lock import WORDS, shown
from .stores import Store

SCOPES: Final[dict[SearchScope, Promise]] = {
    SearchScope.SEMAPHORE_AND_HOLDER: _("any part of the semaphore or of the holder"),
    SearchScope.SEMAPHORE: _("any part of the semaphore"),
    SearchScope.PREFIX: _("the beginning of the semaphore only, because there are many locks"),
}
EMPTY: Final = LockPage(locks=[], found=0, counts={}, is_capped=False)


@dataclass(frozen=True)
class StateLink:
    """A link that filters by state."""

    word: Promise
    address: str
    is_current: bool
    count: int | None


@dataclass(frozen=True)
class PageLink:
    """A link to a page, or a gap between the numbers."""

    number: int | str
    address: str
    is_current: bool


class LockList:
    """What a store answered to the question that the address is."""

    def __init__(
        self, store: Store, address: ListAddress, addresses: Addresses, limit: int
    ) -> None:
        self._addresses = addresses
        self._limit = limit
        self.address = address
        self.page = EMPTY
        self.window = store.listing.window if store.listing else 0
        if is_searchable(address.search):
            self.page = store.ask(lambda backend: backend.page(address.lock_query(limit))) or EMPTY
        if self.page.found and not self.page.locks:  # the last page has become an earlier one
            self.address = last = address.on_page(-(-self.page.found // limit))
            self.page = store.ask(lambda backend: backend.page(last.lock_query(limit))) or EMPTY
        self.locks = [shown(info, addresses, store) for info in self.page.locks]

    @property
    def scope(self) -> Promise:
        """In what the store looked for the search."""
        return SCOPES[self.page.scope]

    @property
    def has_selectable(self) -> bool:
        """Whether a lock of this page can be force-released."""
        return any(lock.can_be_force_released for lock in self.locks)

    @property
    def summary(self) -> str:
        """The numbers in a sentence, which is read aloud when they change."""
        counts = self.page.counts or {LockState.HELD: self.page.found}
        held, stale = (counts.get(state, 0) for state in (LockState.HELD, LockState.STALE))
        parts = [ngettext("%(n)d lock held", "%(n)d locks held", held) % {"n": held}]
        if stale:
            parts.append(ngettext("%(n)d lock stale", "%(n)d locks stale", stale) % {"n": stale})
        return ", ".join(parts) + "."

    @property
    def states(self) -> list[StateLink]:
        """The links of the filter by state, with how many locks each leads to."""
        counts = self.page.counts
        everything = sum(counts.values()) if counts else None
        choices: dict[str, tuple[Promise, int | None]] = {"": (_("all"), everything)}
        choices |= {key: (WORDS[key], counts.get(state)) for key, state in STATES.items()}
        return [
            StateLink(
                word=word,
                address=self._addresses.list(self.address.in_state(key)),
                is_current=key == self.address.state,
                count=count,
            )
            for key, (word, count) in choices.items()
        ]

    @property
    def pages(self) -> list[PageLink]:
        """The links to the pages; none if there is one page only."""
        paginator = Paginator(range(self.page.found), self._limit)
        return list(self._page_links(paginator)) if paginator.num_pages > 1 else []

    def _page_links(self, paginator: "Paginator[int]") -> Iterator[PageLink]:
        for number in paginator.get_elided_page_range(self.address.page):
            is_gap = not isinstance(number, int)
            yield PageLink(
                number=number,
                address="" if is_gap else self._addresses.list(self.address.on_page(int(number))),
                is_current=number == self.address.page,
            )

    @property
    def without_search(self) -> str:
        """The address of the same list without the search."""
        return self._addresses.list(replace(self.address, search="", page=1))


def is_searchable(search: str) -> bool:
    """Tell whether a semaphore or a holder could have the text: it isn't too long, for instance."""
    try:
        validate_prefix(search)
    except ValueError:
        return False
    return True
