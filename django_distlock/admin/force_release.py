"""Force-release from the admin: which locks, what that means for their holders, what came of it."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, NamedTuple

from django.core.exceptions import BadRequest
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from django_distlock.backends.base import TransactionalStore
from django_distlock.backends.operations import ListingStore
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.records import LockInfo, LockState
from django_distlock.redaction.credentials import without_credentials
from django_distlock.semaphores.validation import validate_semaphore

from .addresses import Addresses
from .shown_lock import ShownLock, shown
from .stores import Store

GREATEST_TOKEN: Final = 2**63 - 1
SELECTION: Final = re.compile(r"([0-9]{1,19}):(.+)", re.DOTALL)


class Selected(NamedTuple):
    """A lock that the operator saw: the semaphore, as it was granted with this token."""

    semaphore: str
    token: int


def parse_selection(values: Iterable[str]) -> list[Selected]:
    """Return the locks that the checkboxes name, each once. See ShownLock.selection."""
    selected = {}
    for value in values:
        match = SELECTION.fullmatch(value)
        if match is None or int(match[1]) > GREATEST_TOKEN:
            raise BadRequest("Not a lock with its token.")
        try:
            semaphore = validate_semaphore(match[2])
        except ValueError as error:
            raise BadRequest(str(error)) from error
        selected[value] = Selected(semaphore, int(match[1]))
    return list(selected.values())


class Outcome(Enum):
    """What came of a force-release."""

    RELEASED = auto()
    HELD_BY_ANOTHER = auto()
    FREE = auto()
    UNKNOWN = auto()
    """The store didn't answer; it may have been carried out."""
    NOT_TRIED = auto()
    """The store didn't answer for another lock before."""


@dataclass(frozen=True)
class Candidate:
    """A selected lock, as it is now."""

    selected: Selected
    lock: ShownLock | None
    outcome: Outcome | None
    """What force-release would come to; None if it would release the lock."""

    @property
    def is_free(self) -> bool:
        """Whether nobody holds it any more."""
        return self.outcome is Outcome.FREE

    @property
    def is_held_by_another(self) -> bool:
        """Whether it was granted again meanwhile."""
        return self.outcome is Outcome.HELD_BY_ANOTHER

    @property
    def is_kept(self) -> bool:
        """Whether only its min_hold keeps it from others."""
        return self.outcome is None and self.lock is not None and self.lock.info.kept


def candidates(store: Store, selection: list[Selected], addresses: Addresses) -> list[Candidate]:
    """Look the selected locks up; none if the store doesn't answer."""

    def look_up(backend: ListingStore) -> list[Candidate]:
        return [
            _candidate(store, backend.find(each.semaphore), each, addresses) for each in selection
        ]

    return store.ask(look_up) or []


def _candidate(
    store: Store, info: LockInfo | None, selected: Selected, addresses: Addresses
) -> Candidate:
    lock = shown(info, addresses, store) if info else None
    return Candidate(selected, lock, _obstacle(selected, info))


def _obstacle(selected: Selected, info: LockInfo | None) -> Outcome | None:
    if info is None or info.state is not LockState.HELD:
        return Outcome.FREE
    return None if info.token == selected.token else Outcome.HELD_BY_ANOTHER


def release_all(
    store: ListingStore, selection: list[Selected], by: str
) -> Iterator[tuple[Selected, Outcome, str]]:
    """Force-release each lock that still has its token; yield what came of it, and why.

    An error is not repeated for each lock: each try could take the store's whole time limit.
    """
    error = ""
    for selected in selection:
        if error:
            yield selected, Outcome.NOT_TRIED, error
            continue
        try:
            if store.force_release(selected.semaphore, selected.token, by=by):
                yield selected, Outcome.RELEASED, ""
            else:
                info = store.find(selected.semaphore)
                yield selected, _obstacle(selected, info) or Outcome.FREE, ""
        except LockBackendUnavailable as failure:
            error = without_credentials(failure)
            yield selected, Outcome.UNKNOWN, error


def consequence(store: ListingStore) -> Promise:
    """Say what a force-release means for the work of a holder that is still alive."""
    if not store.guard_commits:
        return _(
            "This store's guard_commits is off: nothing stops its work, which may be done twice."
        )
    if isinstance(store, TransactionalStore):
        return _(
            "If it works in a transaction on the database of the locks, its commit is refused and "
            "rolled back. So is a commit to another database, unless it comes within moments. What "
            "it does outside transactions may be done twice: e-mails, calls to other services."
        )
    return _(
        "If it works in a transaction, its commit is refused and rolled back, unless it comes "
        "within moments. What it does outside transactions may be done twice: e-mails, calls to "
        "other services."
    )
