"""The admin's pages of locks, for every store: a list, a lock's own page, and force-release."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db import connections, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.text import capfirst
from django.utils.translation import gettext

from django_distlock.events.pages import past_of
from django_distlock.models import Lock
from django_distlock.semaphores.validation import validate_semaphore

from .addresses import Addresses, ListAddress, lock_of, object_id
from .force_release import Selected, candidates, consequence, parse_selection, release_all
from .lock_list import LockList
from .outcomes import log_message, messages_of
from .shown_lock import ShownWaiter, shown
from .stores import Store, Stores
from .times import show_now

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Lock]
else:
    _ModelAdmin = admin.ModelAdmin

View = TypeVar("View", bound=Callable[..., HttpResponse])
TEMPLATES: Final = "admin/distlock/lock"
REFRESH_HEADER: Final = "X-Distlock-Refresh"


def not_atomic(view: View) -> View:
    """Exempt a view from ATOMIC_REQUESTS on every database.

    So a release has happened when the page says so, and the error of a store in the site's own
    database doesn't break the page's transaction.
    """
    for alias in connections:
        view = transaction.non_atomic_requests(alias)(view)
    return view


def is_refresh(request: HttpRequest) -> bool:
    """Tell whether it is the script that asks, for the part of a page that changes."""
    return REFRESH_HEADER in request.headers


@admin.register(Lock)
class LockAdmin(_ModelAdmin):
    """The admin of the locks in each store of `DISTLOCK`. An operator may release them by force.

    No page shows a lock's owner, which is a secret.
    """

    list_per_page: ClassVar[int] = 100
    refresh_seconds: ClassVar[float] = 5
    """How often a page refreshes itself."""

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_force_release"
        view = self.admin_site.admin_view(self.force_release_view)
        return [path("force-release/", view, name=name), *super().get_urls()]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Lock | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Lock | None = None) -> bool:
        return False

    def has_force_release_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may take locks from their holders. It takes to see them, too."""
        codename = get_permission_codename("force_release", self.opts)
        allowed = request.user.has_perm(f"{self.opts.app_label}.{codename}")
        return allowed and self.has_view_permission(request)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Lock:
        """Return an object for the admin's log. No row is read: the lock may be in any store."""
        return Lock(semaphore=unquote(object_id))

    @not_atomic
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show a store's locks."""
        self._require(self.has_view_permission(request))
        stores = Stores()
        address = ListAddress.parse(request.GET, stores.default)
        store = stores.get(address.alias)
        if store is None and stores:
            if not is_refresh(request):  # which shows no messages
                unknown = gettext("DISTLOCK has no store %(alias)s.") % {"alias": address.alias}
                self.message_user(request, unknown, messages.WARNING)
            return HttpResponseRedirect(self._addresses.list(ListAddress(stores.default)))
        listing = LockList(store, address, self._addresses, self.list_per_page) if store else None
        context = {
            "title": capfirst(self.opts.verbose_name_plural),
            "listing": listing,
            "pauses": store.pauses() if store else [],
            **self._context(request, stores, store, address),
        }
        return self._answer(request, "change_list", {**context, **(extra_context or {})})

    @not_atomic
    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show what is known of one lock, whether somebody holds it or not."""
        self._require(self.has_view_permission(request))
        stores = Stores()
        alias, semaphore = lock_of(unquote(object_id), stores.aliases)
        store = stores.get(alias)
        try:
            validate_semaphore(semaphore)
        except ValueError as error:
            raise Http404(str(error)) from error
        if store is None:
            raise Http404(stores.error)
        info = store.ask(lambda backend: backend.find(semaphore))
        waiters = store.ask(lambda backend: backend.waiters(semaphore)) if store.answers else None
        context = {
            "title": semaphore,
            "semaphore": semaphore,
            "lock": shown(info, self._addresses, store) if info else None,
            "waiters": None if waiters is None else [ShownWaiter(each) for each in waiters],
            "pauses": [each for each in store.pauses() if semaphore.startswith(each.pause.prefix)],
            "past": past_of(alias, semaphore)
            if store.has_history and not is_refresh(request)
            else None,
            "log_address": self._addresses.log(alias, semaphore),
            **self._context(request, stores, store, ListAddress(alias)),
        }
        return self._answer(request, "change_form", {**context, **(extra_context or {})})

    @not_atomic
    def force_release_view(self, request: HttpRequest) -> HttpResponse:
        """Ask for confirmation. Once it is given, release the locks that are still as seen."""
        self._require(self.has_force_release_permission(request))
        stores = Stores()
        address = ListAddress.parse(request.GET, stores.default)
        store = stores.get(address.alias)
        back = HttpResponseRedirect(self._addresses.list(address))
        selection = parse_selection(request.POST.getlist("selected"))
        if request.method != "POST" or store is None:
            return back
        if not selection:
            nothing = gettext("Select the locks to force-release first.")
            self.message_user(request, nothing, messages.WARNING)
            return back
        if "confirmed" in request.POST:
            self._force_release(request, store, selection)
            return back
        found = candidates(store, selection, self._addresses)
        context = {
            "title": gettext("Force-release"),
            "candidates": found,
            "releasable": [each for each in found if each.outcome is None],
            "consequence": consequence(store.listing) if store.listing else "",
            **self._context(request, stores, store, address),
        }
        return self._answer(request, "force_release", context)

    def _force_release(self, request: HttpRequest, store: Store, selection: list[Selected]) -> None:
        if store.listing is None:
            problem = store.error or gettext("This store can't release a lock by force.")
            self.message_user(request, problem, messages.ERROR)
            return
        by = f"admin user {request.user.get_username()}"
        outcomes = []
        for selected, outcome, error in release_all(store.listing, selection, by):
            outcomes.append((selected, outcome, error))
            if entry := log_message(selected, outcome):
                lock = Lock(semaphore=object_id(store.alias, selected.semaphore))
                self.log_change(request, lock, entry)
        for message in messages_of(outcomes):
            self.message_user(request, message.text, message.level)

    @property
    def _addresses(self) -> Addresses:
        return Addresses(self.admin_site.name)

    def _require(self, allowed: bool) -> None:
        if not allowed:
            raise PermissionDenied

    def _context(
        self, request: HttpRequest, stores: Stores, store: Store | None, address: ListAddress
    ) -> dict[str, Any]:
        """Return what the templates of all pages need."""
        return {
            "opts": self.opts,
            "stores": stores,
            "store": store,
            "address": address,
            "list_address": self._addresses.list(address),
            "tabs": [
                (each, self._addresses.list(ListAddress(each.alias)), each is store)
                for each in stores
            ],
            "as_of": show_now(),
            "refresh_seconds": self.refresh_seconds,
            "can_force_release": self.has_force_release_permission(request),
            "force_release_address": self._addresses.force_release(address),
        }

    def _answer(self, request: HttpRequest, page: str, context: dict[str, Any]) -> HttpResponse:
        """Return the page, or to the script that refreshes it only the part that changes."""
        request.current_app = self.admin_site.name
        if is_refresh(request):
            return TemplateResponse(request, f"{TEMPLATES}/{page}_live.html", context)
        context = {**self.admin_site.each_context(request), **context}
        return TemplateResponse(request, f"{TEMPLATES}/{page}.html", context)
