"""Where the documentation puts locks among the decorators of Django and its frameworks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import connection
from django.test import Client, override_settings

from django_distlock import acquire_lock
from tests.support.documentation import example

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from django.http import HttpRequest, HttpResponse

    from tests.support.scripted_store import ScriptedBackend

PAGES = {
    "Lock a view": ("how-to/lock-a-view.md", "Lock a view"),
    "Lock a class-based view": (
        *("how-to/lock-a-view.md", "Lock a view"),  # whose imports it uses
        "Lock a class-based view",
    ),
    "Django REST framework": ("integrations/rest-framework.md", "Django REST framework"),
    "Django Ninja": ("integrations/ninja.md", "Django Ninja"),
}
VIEWS = {
    "Lock a view": ["/customers/1234/collect/"],
    "Lock a class-based view": ["/method/1234/", "/class/1234/"],
    "Django REST framework": ["/function/1234/", "/customers/1234/collect/"],
    "Django Ninja": ["/collect/1234/"],
}


@pytest.fixture(scope="module")
def views() -> dict[str, ModuleType]:
    """Return the modules that have views."""
    return {name: example(*place) for name, place in PAGES.items()}


def sign_in(get_response: Callable[[HttpRequest], HttpResponse]) -> Any:
    """Set the request's user, as a site's middleware does from a session."""

    def middleware(request: HttpRequest) -> HttpResponse:
        name = request.headers.get("X-User")
        request.user = User(username=name, is_superuser=True) if name else AnonymousUser()
        return get_response(request)

    return middleware


def ask(module: ModuleType, url: str, user: str = "") -> int:
    """Return the status of the module's view at the URL, for this user."""
    with override_settings(ROOT_URLCONF=module.__name__, MIDDLEWARE=[f"{__name__}.sign_in"]):
        return Client().post(url, headers={"X-User": user}).status_code


@pytest.mark.parametrize(
    ("heading", "url"), [(heading, url) for heading, urls in VIEWS.items() for url in urls]
)
def test_view_is_locked_and_strangers_are_kept_outside(
    scripted: ScriptedBackend, views: dict[str, ModuleType], heading: str, url: str
) -> None:
    """Each of the documented views."""
    module = views[heading]
    assert ask(module, url) in (302, 401, 403)
    assert scripted.calls == []
    assert ask(module, url, "collector") == 200
    assert scripted.calls == ["acquire", "release"]
    assert acquire_lock("1234collectPayment")
    assert ask(module, url, "collector") == 409


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("heading", "url", "atomic"),
    [
        ("Lock a view", "/customers/1234/collect/", False),
        ("Lock a class-based view", "/class/1234/", False),
        ("Lock a class-based view", "/method/1234/", True),
        ("Django REST framework", "/function/1234/", True),
        ("Django Ninja", "/collect/1234/", True),
    ],
)
def test_request_transaction_is_where_the_documentation_says(
    scripted: ScriptedBackend,
    monkeypatch: pytest.MonkeyPatch,
    views: dict[str, ModuleType],
    heading: str,
    url: str,
    atomic: bool,
) -> None:
    """Around the lock or inside it. In both cases it has ended when the lock is released."""
    seen: list[bool] = []
    for action in ("acquire", "release"):
        original = getattr(scripted, action)

        def spy(*arguments: Any, original: Any = original) -> Any:
            seen.append(connection.in_atomic_block)
            return original(*arguments)

        monkeypatch.setattr(scripted, action, spy)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    assert ask(views[heading], url, "collector") == 200
    assert seen == [atomic, False]
