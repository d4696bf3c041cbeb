"""Call views by Django, with or without ATOMIC_REQUESTS."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from django.core.handlers.base import BaseHandler
from django.db import connections
from django.test import RequestFactory
from django.urls import ResolverMatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOON = ("1", "2", "3")
"""After how many seconds a client is told to try again, one of them at random."""


@contextmanager
def atomic_requests(*aliases: str) -> Iterator[None]:
    """Make Django open transactions for each request on these databases."""
    with ExitStack() as settings:
        for alias in aliases:
            entry = connections.settings[alias]
            settings.enter_context(mock.patch.dict(entry, ATOMIC_REQUESTS=True))
        yield


def visit(view: Callable[..., Any]) -> Any:
    """Call the view by Django, for a request whose URL resolves to it."""
    request = RequestFactory().get("/")
    request.resolver_match = ResolverMatch(view, (), {})
    return BaseHandler().make_view_atomic(view)(request)
