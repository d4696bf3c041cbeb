"""The stores of DISTLOCK as the pages show them: what each can tell, and what is wrong with it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from django_distlock.backends.base import BaseLockBackend
from django_distlock.backends.memory import MemoryBackend
from django_distlock.backends.operations import ListingStore
from django_distlock.conf import lock_backends
from django_distlock.exceptions import InvalidLockBackend, LockBackendUnavailable
from django_distlock.records import Pause
from django_distlock.redaction.credentials import without_credentials

from .times import show_time

T = TypeVar("T")


@dataclass
class Store:
    """A store by its alias. If it can't be used, `problem` says why, in a word or two."""

    alias: str
    backend: BaseLockBackend | None = None
    problem: Promise | str = ""
    error: str = ""
    """The error's own text."""

    @property
    def answers(self) -> bool:
        """Whether it can be asked about its locks, and has not failed to answer."""
        return self.listing is not None and not self.problem

    @property
    def has_history(self) -> bool:
        """Whether recorded events can be read: not from a database that has just not answered."""
        return self.backend is not None and not (self.problem and self.backend.events_using)

    @property
    def kind(self) -> str:
        """The name of its backend's class."""
        return type(self.backend).__name__ if self.backend is not None else ""

    @property
    def listing(self) -> ListingStore | None:
        """The store, if it can list locks and release them by force."""
        return self.backend if isinstance(self.backend, ListingStore) else None

    @property
    def is_one_process(self) -> bool:
        """Whether it has only the locks of the process that answers."""
        return isinstance(self.backend, MemoryBackend)

    def ask(self, question: Callable[[ListingStore], T]) -> T | None:
        """Ask the store, within its time limit; None if it can't be asked or doesn't answer."""
        if self.listing is None:
            return None
        try:
            with self.listing.time_budget():
                return question(self.listing)
        except LockBackendUnavailable as error:
            self.problem, self.error = _("unreachable"), without_credentials(error)
            return None

    def pauses(self) -> "list[ShownPause]":
        """Return the pauses in force, as far as the store tells."""
        if not self.answers:
            return []
        return [ShownPause(pause) for pause in self.ask(lambda store: store.pauses()) or []]


@dataclass(frozen=True)
class ShownPause:
    """A pause, with its times in words."""

    pause: Pause

    @property
    def since(self) -> str:
        """When it began."""
        return show_time(self.pause.since)

    @property
    def until(self) -> str:
        """When it ends by itself, if it does."""
        return show_time(self.pause.until) if self.pause.until else ""


def open_store(alias: str) -> Store:
    """Return the store of the alias, which isn't asked for anything."""
    try:
        return Store(alias, lock_backends[alias])
    except InvalidLockBackend as error:
        return Store(alias, problem=_("misconfigured"), error=without_credentials(error))
    except LockBackendUnavailable as error:
        return Store(alias, problem=_("unreachable"), error=without_credentials(error))


class Stores(list[Store]):
    """The stores in the order of DISTLOCK; none, and the error, if the setting can't be read."""

    def __init__(self) -> None:
        self.error = ""
        try:
            super().__init__(open_store(alias) for alias in lock_backends)
        except InvalidLockBackend as error:
            self.error = without_credentials(error)

    @property
    def aliases(self) -> list[str]:
        """The aliases, in that order."""
        return [store.alias for store in self]

    @property
    def default(self) -> str:
        """The alias whose tab is open at first."""
        return next(iter(self.aliases), "")

    def get(self, alias: str) -> Store | None:
        """Return the store of the alias, or None."""
        return next((store for store in self if store.alias == alias), None)
