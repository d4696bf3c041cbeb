"""What a decorated view adds to a bare one, through Django's handler; and the pair beside it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from django.core.handlers.base import BaseHandler
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django.urls import path

from benchmarks.contenders import CONTENDERS, OURS

from .pairs import PAIR, pair
from .turns import Effort, Kind, figures, repeat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.report.figures import Figure

VIEWS = "decorated view"
BARE_VIEW, LOCKED_VIEW = "a bare view", "a decorated view"


def measure(stores: Sequence[str], effort: Effort) -> list[Figure]:
    """Measure requests of the bare view, of one that is locked in each store, and its pair."""
    from django_distlock import distributed_lock

    def view(request: HttpRequest, customer_id: int) -> HttpResponse:
        return HttpResponse()

    def visit(url: str) -> Callable[[], None]:
        request = RequestFactory().get(url)

        def send() -> None:
            assert handler.get_response(request).status_code == 200

        return send

    urls = [path("bare/<int:customer_id>/", view)]
    batches = {}
    for number, store in enumerate(stores):
        locked = distributed_lock("<customer_id>collectPayment", backend=store)(view)
        urls.append(path(f"locked/{number}/<int:customer_id>/", locked))
        batches[Kind(store, OURS, BARE_VIEW)] = repeat(visit("/bare/1234/"))
        batches[Kind(store, OURS, LOCKED_VIEW)] = repeat(visit(f"/locked/{number}/1234/"))
        batches[Kind(store, OURS, PAIR)] = repeat(partial(pair, CONTENDERS[store]()))
    with override_settings(ROOT_URLCONF=tuple(urls)):
        handler = BaseHandler()
        handler.load_middleware()
        return figures(VIEWS, batches, effort.rounds)
