"""Locks in the admin, read-only, for users with the permission to view them."""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.db import router
from django.http import HttpRequest
from django.utils.formats import localize
from django.utils.html import format_html
from django.utils.timezone import localtime
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_distlock.backends.database.backend import DatabaseBackend
from django_distlock.conf import lock_backends
from django_distlock.durations import format_duration
from django_distlock.exceptions import InvalidLockBackend, LockBackendUnavailable
from django_distlock.models import Lock, LockQuerySet
from django_distlock.records import LockState

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Lock]
else:
    _ModelAdmin = admin.ModelAdmin

STATES = {LockState.HELD: _("held"), LockState.STALE: _("stale"), LockState.RELEASED: _("released")}


class StateFilter(admin.SimpleListFilter):
    """Filter by state; held locks by default."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        explained = {LockState.STALE: _("stale (expired, never released)")}
        return [*{**STATES, **explained}.items(), ("all", _("All"))]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        _, *choices = super().choices(changelist)  # without Django's "All"
        for (value, _title), choice in zip(self.lookup_choices, choices, strict=True):
            yield {**choice, "selected": value == (self.value() or LockState.HELD)}

    def queryset(self, request: HttpRequest, queryset: Any) -> LockQuerySet:
        locks: LockQuerySet = queryset
        match self.value():
            case None | LockState.HELD:
                return locks.held()
            case LockState.STALE:
                return locks.stale()
            case LockState.RELEASED:
                return locks.released()
        return locks


def database_of_locks() -> str:
    """Return the alias of a database that a store keeps locks in.

    The router's choice for the model if a store uses it, else that of the first store in DISTLOCK.
    """
    routed: str = router.db_for_read(Lock)
    kept_in = []
    for alias in lock_backends:
        with suppress(InvalidLockBackend, LockBackendUnavailable):
            store = lock_backends[alias]
            if isinstance(store, DatabaseBackend):
                kept_in.append(store.using)
    return routed if routed in kept_in or not kept_in else kept_in[0]


class LockChangeList(ChangeList):
    """A list whose links to all locks, and to clear the filters, say `state=all`."""

    show_all_query: str
    is_of_all: bool

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str | None] | None = None
    ) -> LockQuerySet:
        locks: Any = super().get_queryset(request, exclude_parameters)
        self.clear_all_filters_qs = self.get_query_string({StateFilter.parameter_name: "all"})
        self.show_all_query = self.get_query_string(
            {StateFilter.parameter_name: "all"}, remove=[SEARCH_VAR]
        )
        is_unfiltered = request.GET.get(StateFilter.parameter_name) == "all"
        self.has_active_filters = self.has_active_filters and not is_unfiltered
        self.is_of_all = is_unfiltered and not self.query
        found: LockQuerySet = locks
        return found


@admin.register(Lock)
class LockAdmin(_ModelAdmin):
    """Read-only, because code acquires and releases locks. No page shows the secret owner."""

    class Media:
        css: ClassVar = {"all": ("django_distlock/admin.css",)}

    list_display = ("semaphore", "state", "holder", "since", "time_left", "token")
    list_filter = (StateFilter,)
    search_fields = ("semaphore",)
    search_help_text = _("The beginning of the semaphore")
    fields = list_display
    readonly_fields = list_display
    show_full_result_count = False
    actions = None

    def get_queryset(self, request: HttpRequest) -> LockQuerySet:
        locks: Any = super().get_queryset(request)
        found: LockQuerySet = locks.using(database_of_locks()).defer("owner").with_state()
        return found

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return LockChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[LockQuerySet, bool]:
        locks: LockQuerySet = queryset
        return locks.with_prefix(search_term), False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Refuse `?owner__startswith=…`, by which the owner could be guessed."""
        of_owner = lookup == "owner" or lookup.startswith("owner__")
        return not of_owner and super().lookup_allowed(lookup, value, request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Lock | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Lock | None = None) -> bool:
        return False

    @admin.display(description=_("state"))
    def state(self, lock: Lock) -> str:
        """Show the state by the database's clock, as a word and a colour."""
        state = LockState(lock.state)
        return format_html(
            '<span class="distlock-state distlock-{}">{}</span>', state, STATES[state]
        )

    @admin.display(description=_("since"), ordering="acquired_at")
    def since(self, lock: Lock) -> str:
        """Show the time of acquisition, in the viewer's time zone."""
        return localize(localtime(lock.acquired_at)) if lock.acquired_at else ""

    @admin.display(description=_("time left"), ordering="expires_at")
    def time_left(self, lock: Lock) -> str:
        """Show how long the lease still lasts, or how long ago it ended."""
        if lock.expires_at is None:
            return gettext("until released") if lock.state == LockState.HELD else ""
        if lock.state == LockState.HELD:
            return format_duration(lock.expires_at - lock.seen_at)
        ended = {"age": format_duration(lock.seen_at - lock.expires_at)}
        if lock.state == LockState.STALE:
            return gettext("expired %(age)s ago") % ended
        return gettext("released %(age)s ago") % ended
