"""What a decorated view adds to a bare one, through Django's handler; and the pair beside it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from django.core.handlers.base import BaseHandler
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django.urls import path

from benchmarks.contenders import CONTENDERS, OURS
from benchmarks.every_store import DATABASES
from benchmarks.pair import make_update

from .pairs import PAIR, pair
from .turns import Effort, Kind, figures, repeat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.report.figures import Figure

VIEWS = "decorated view"
BARE_VIEW, LOCKED_VIEW = "a bare view", "a decorated view"
ATOMIC = ", ATOMIC_REQUESTS"


def measure(stores: Sequence[str], effort: Effort) -> list[Figure]:
    """Measure requests of a bare view, of one that is locked in each store, and the store's pair.

    In a database also of views that update a row under ATOMIC_REQUESTS, whose commit is guarded.
    """
    batches = {}
    for store in stores:
        batches[Kind(store, OURS, PAIR)] = repeat(partial(pair, CONTENDERS[store]()))
        for case, call in visits(store, return_none).items():
            batches[Kind(store, OURS, case)] = repeat(call)
        if store in DATABASES:
            update = make_update(DATABASES[store])
            for case, call in visits(store, update).items():
                atomic = partial(call_atomically, DATABASES[store], call)
                batches[Kind(store, OURS, case + ATOMIC)] = repeat(atomic)
    with override_settings(ROOT_URLCONF=()):
        return figures(VIEWS, batches, effort.rounds)


def visits(store: str, work: Callable[[], None]) -> dict[str, Callable[[], None]]:
    """Return requests of a view that does this work, bare and locked.

    Each has a site of its own, with one path: among several, the later ones would be found later.
    """
    from django_distlock import distributed_lock

    def view(request: HttpRequest, customer_id: int) -> HttpResponse:
        work()
        return HttpResponse()

    handler = BaseHandler()
    handler.load_middleware()
    decorate = distributed_lock("<customer_id>collectPayment", backend=store)
    found: dict[str, Callable[[], None]] = {}
    for case, target in {BARE_VIEW: view, LOCKED_VIEW: decorate(view)}.items():
        request = RequestFactory().get("/1234/")
        vars(request)["urlconf"] = (path("<int:customer_id>/", target),)
        found[case] = partial(visit, handler, request)
    return found


def visit(handler: BaseHandler, request: HttpRequest) -> None:
    """Answer a request."""
    assert handler.get_response(request).status_code == 200


def call_atomically(alias: str, call: Callable[[], None]) -> None:
    """Call a view as if its database had ATOMIC_REQUESTS, alone of all."""
    connections.settings[alias]["ATOMIC_REQUESTS"] = True
    try:
        call()
    finally:
        connections.settings[alias]["ATOMIC_REQUESTS"] = False


def return_none() -> None:
    """Do nothing."""
