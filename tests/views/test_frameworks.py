"""What docs/frameworks.md shows works."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.handlers.base import BaseHandler
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import RequestFactory
from django.urls import resolve

from django_distlock import acquire_lock
from tests.support.documentation import example

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend

VIEWS = {
    "Functions and classes": ["/function/1234/", "/method/1234/", "/class/1234/"],
    "Django REST framework": ["/function/1234/", "/customers/1234/collect/"],
    "Django Ninja": ["/collect/1234/"],
}


@pytest.fixture(scope="module")
def views() -> dict[str, Any]:
    """Return the modules that have views."""
    return {heading: example("frameworks.md", heading) for heading in VIEWS}


def ask(module: Any, url: str, user: User | AnonymousUser) -> int:
    """Return the status that the module's view for the URL answers the user."""
    request: Any = RequestFactory().post(url)
    request.user = user
    request._dont_enforce_csrf_checks = True
    urlconf: Any = tuple(module.urlpatterns)
    request.resolver_match = match = resolve(url, urlconf)
    view: Any = BaseHandler().make_view_atomic(match.func)
    status: int = view(request, *match.args, **match.kwargs).status_code
    return status


@pytest.mark.parametrize(
    ("heading", "url"), [(heading, url) for heading, urls in VIEWS.items() for url in urls]
)
def test_view_is_locked_and_strangers_are_kept_outside(
    scripted: ScriptedBackend, views: dict[str, Any], heading: str, url: str
) -> None:
    """Each of the documented views."""
    module, user = views[heading], User(username="collector")
    assert ask(module, url, AnonymousUser()) in (302, 401, 403)
    assert scripted.calls == []
    assert ask(module, url, user) == 200
    assert scripted.calls == ["acquire", "release"]
    assert acquire_lock("1234collectPayment")
    assert ask(module, url, user) == 409


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("heading", "url", "atomic"),
    [
        ("Functions and classes", "/function/1234/", False),
        ("Functions and classes", "/class/1234/", False),
        ("Functions and classes", "/method/1234/", True),
        ("Django REST framework", "/function/1234/", True),
        ("Django Ninja", "/collect/1234/", True),
    ],
)
def test_request_transaction_is_where_it_is_said_to_be(
    scripted: ScriptedBackend,
    monkeypatch: pytest.MonkeyPatch,
    views: dict[str, Any],
    heading: str,
    url: str,
    atomic: bool,
) -> None:
    """Around the lock or inside it; in any case it is over when the lock is released."""
    seen: list[bool] = []
    for action in ("acquire", "release"):
        original = getattr(scripted, action)

        def spy(*arguments: Any, original: Any = original) -> Any:
            seen.append(connection.in_atomic_block)
            return original(*arguments)

        monkeypatch.setattr(scripted, action, spy)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    assert ask(views[heading], url, User(username="collector")) == 200
    assert seen == [atomic, False]


def test_command_is_locked(scripted: ScriptedBackend) -> None:
    """The documented one, and refused in one line."""
    command = example("frameworks.md", "Management commands").Command(stdout=StringIO())
    call_command(command, 1234)
    assert command.stdout.getvalue() == "collected\n"
    acquire_lock("1234collectPayment")
    with pytest.raises(CommandError, match=r"^Somebody is collecting from customer 1234\.$"):
        call_command(command, 1234)
