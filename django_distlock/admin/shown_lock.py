"""A lock as the admin's pages show it."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from django.utils.functional import Promise
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_distlock.arguments import format_duration
from django_distlock.records import LockInfo, LockState, WaiterInfo

from .addresses import Addresses
from .stores import Store
from .times import show_time

WORDS: Final[dict[str, Promise]] = {
    "held": _("held"),
    "kept": _("kept"),
    "stale": _("stale"),
    "released": _("released"),
}
EXPLANATIONS: Final[dict[str, Promise]] = {
    "held": _("A process works under this lock."),
    "kept": _("Its holder is done. The lock stays closed to others until its min_hold is over."),
    "stale": _("Its lease expired and was never released. Anybody can acquire it."),
    "released": _("Nobody holds it."),
}
BREAKS: Final = re.compile(r"(?<=[.:/_-])(?=.)", re.DOTALL)
BREAK: Final = SafeString("<wbr>")


def breakable(text: str) -> SafeString:
    """Return the text for a narrow column, where a line may end after a dot and the like."""
    return format_html_join(BREAK, "{}", ((part,) for part in BREAKS.split(text)))


@dataclass(frozen=True)
class ShownLock:
    """What is known of a lock, in words. Durations are by the store's clock."""

    info: LockInfo
    address: str
    """The address of the lock's own page."""
    tells_renewals: bool
    """Whether the store says when it was renewed."""

    @property
    def semaphore(self) -> SafeString:
        """The semaphore, for a narrow column."""
        return breakable(self.info.semaphore)

    @property
    def process(self) -> SafeString:
        """The holder without its label, for a narrow column."""
        return breakable(self.info.process)

    @property
    def label(self) -> SafeString:
        """The holder's label, for a narrow column."""
        return breakable(self.info.label)

    @cached_property
    def state(self) -> str:
        """A key of WORDS."""
        return "kept" if self.info.kept else str(self.info.state)

    @property
    def word(self) -> Promise:
        """The state, for people."""
        return WORDS[self.state]

    @property
    def explanation(self) -> Promise:
        """The state in a sentence."""
        return EXPLANATIONS[self.state]

    @property
    def can_be_force_released(self) -> bool:
        """Whether there is a holder, or a min_hold, to take it from, and a token to name it by."""
        return self.info.state is LockState.HELD and self.info.token is not None

    @property
    def selection(self) -> str:
        """The value of its checkbox: this lock as it was granted this time."""
        return f"{self.info.token}:{self.info.semaphore}"

    @property
    def since(self) -> str:
        """The time of its acquisition."""
        return show_time(self.info.acquired_at) if self.info.acquired_at else ""

    @property
    def held_for(self) -> str:
        """How long it has been held."""
        if self.info.acquired_at is None or self.info.state is LockState.RELEASED:
            return ""
        return format_duration(self.info.seen_at - self.info.acquired_at)

    @property
    def renewed(self) -> str:
        """How long ago it was renewed: a hung worker's lock is old, and renewed all the same."""
        if self.info.state is LockState.RELEASED or self.info.kept:
            return ""
        if self.info.renewed_at is None:
            return gettext("never renewed") if self.tells_renewals else ""
        age = format_duration(self.info.seen_at - self.info.renewed_at)
        return gettext("renewed %(age)s ago") % {"age": age}

    @property
    def sign_of_life(self) -> Promise | str:
        """What its renewals tell of its holder. A lease is renewed each third of its ttl."""
        info = self.info
        begun = info.renewed_at or info.acquired_at
        if info.state is not LockState.HELD or info.kept or info.expires_at is None or not begun:
            return ""
        if info.seen_at - begun > (info.expires_at - begun) / 2:
            return _("A renewal is overdue: its process may be dead, stopped or cut off.")
        if info.renewed_at is None:
            return ""
        return _("Its process is alive, but its work may hang.")

    @property
    def ends(self) -> str:
        """The time at which it ends unless renewed, or ended."""
        return show_time(self.info.expires_at) if self.info.expires_at else ""

    @property
    def time_left(self) -> str:
        """How long it lasts unless renewed, or how long ago it ended."""
        info = self.info
        if info.expires_at is None:
            return gettext("until released") if info.state is LockState.HELD else ""
        if info.state is LockState.HELD:
            return format_duration(info.expires_at - info.seen_at)
        ended = {"age": format_duration(info.seen_at - info.expires_at)}
        if info.state is LockState.STALE:
            return gettext("expired %(age)s ago") % ended
        return gettext("released %(age)s ago") % ended

    @property
    def percent_left(self) -> int | None:
        """How much of the lease is left, if that is known."""
        info = self.info
        begun = info.renewed_at or info.acquired_at
        is_lease = info.state is LockState.HELD and not info.kept
        if not is_lease or info.expires_at is None or begun is None:
            return None
        whole = (info.expires_at - begun).total_seconds()
        left = (info.expires_at - info.seen_at).total_seconds()
        return round(100 * max(0, min(1, left / whole))) if whole > 0 else 0


def shown(info: LockInfo, addresses: Addresses, store: Store) -> ShownLock:
    """Return a store's lock as the pages show it."""
    tells_renewals = store.listing is not None and store.listing.lists_renewals
    return ShownLock(info, addresses.lock(store.alias, info.semaphore), tells_renewals)


@dataclass(frozen=True)
class ShownWaiter:
    """A waiter in a store's queue."""

    info: WaiterInfo

    @property
    def since(self) -> str:
        """Since when it waits, if the store knows."""
        return show_time(self.info.since) if self.info.since else ""
