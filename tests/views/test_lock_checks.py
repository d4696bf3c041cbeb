"""The system checks of the locks of views and tasks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import celery
import pytest
from django.http import HttpRequest, HttpResponse  # noqa: TC002 - evaluated by Ninja
from django.test import override_settings
from django.urls import path

from django_distlock import distributed_lock
from django_distlock.views.lock_checks import check_locks, check_templates
from django_distlock.views.url_checks import check_captures

if TYPE_CHECKING:
    from django.core import checks

pytestmark = pytest.mark.once


def answer(request: HttpRequest, customer_id: Any = None, **kwargs: Any) -> HttpResponse:
    """Stand for a view, of which each argument has a default."""
    raise NotImplementedError


@pytest.mark.parametrize("urlconf", ["nowhere.urls", 5])
@pytest.mark.parametrize("check", [check_captures, check_locks, lambda: [*check_templates()]])
def test_invalid_urlconf_is_left_to_djangos_checks(
    check: Any, urlconf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These checks don't fail."""
    monkeypatch.setattr("django_distlock.views.lock_checks.like_f_strings", {})
    monkeypatch.setattr("django_distlock.views.lock_checks.locks_of_tasks", lambda: iter(()))
    with override_settings(ROOT_URLCONF=urlconf):
        assert check() == []


# Templates


def rebuild() -> None:
    """Stand for a function that takes no arguments."""


@pytest.mark.parametrize(
    ("template", "argument"),
    [
        ("{customer_id}collectPayment", "customer_id"),
        ("{order.pk}:collect", "order.pk"),
        ("{names[0]}:collect", "names"),
        ("{pk:05}:collect", "pk"),
        ("{pk!r}:collect", "pk"),
        ("{str(pk)}:collect", "str"),
        ('{"kind": "json"}', None),
        ("{}", None),
        ("{ }", None),
        ("a{b", None),
        ("plain", None),
    ],
)
def test_template_that_looks_like_an_f_string_is_warned_of(
    template: str, argument: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a function that no URL leads to."""
    found: dict[Any, str] = {}
    monkeypatch.setattr("django_distlock.views.lock_checks.like_f_strings", found)
    monkeypatch.setattr("django_distlock.semaphores.templates.like_f_strings", found)
    distributed_lock(template)(rebuild)
    distributed_lock(template)(rebuild)
    messages = [*check_templates()]
    assert [message.id for message in messages] == ["distlock.W017"] * (argument is not None)
    for message in messages:
        assert message.obj == f"{__name__}.rebuild"
        assert f"Write <{argument}>" in str(message.hint)


# Stores and times


def checked(*locks: distributed_lock, **settings: Any) -> list[checks.CheckMessage]:
    """Return the messages about views with these locks."""
    urls = [path(f"{number}/", each(answer)) for number, each in enumerate(locks)]
    with override_settings(ROOT_URLCONF=tuple(urls), **settings):
        return [each for each in check_locks() if each.obj == f"{__name__}.answer"]


DATABASE = "django_distlock.backends.database.DatabaseBackend"
MEMCACHED = "django_distlock.backends.memcached.MemcachedBackend"
STORES = {
    "default": {"BACKEND": DATABASE},
    "broken": {"BACKEND": "nowhere.Backend"},
    "memory": {"BACKEND": "django_distlock.backends.memory.MemoryBackend"},
    "minimal": {"BACKEND": "tests.app.backends.MinimalBackend"},
}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, None),
        ({"ttl": 10}, None),
        ({"backend": "jobs"}, "DISTLOCK['jobs']: not configured"),
        ({"backend": "broken"}, None),
        ({"backend": "minimal", "ttl": None}, "DISTLOCK['minimal']: MinimalBackend has no unlim"),
        ({"backend": "minimal", "ttl": None, "max_hold": 5}, None),
    ],
)
def test_lock_whose_store_refuses_it_is_an_error(
    arguments: dict[str, Any], said: str | None
) -> None:
    """At once, and not at the first request. A broken store is reported by another check."""
    messages = checked(distributed_lock("x", **arguments), DISTLOCK=STORES)
    assert [message.id for message in messages] == ["distlock.E011"] * (said is not None)
    if said is not None:
        assert messages[0].msg.startswith(said)
        assert str(messages[0].hint).startswith("Write ")


@pytest.mark.parametrize(
    ("arguments", "is_warned"),
    [
        ({"ttl": 5}, True),
        ({"ttl": 6}, False),
        ({"ttl": 5, "renew": False}, False),
        ({"ttl": None}, False),
        ({"ttl": 5, "backend": "memory"}, False),
    ],
)
def test_ttl_of_a_lock_leaves_time_for_two_renewals(
    arguments: dict[str, Any], is_warned: bool
) -> None:
    """Unless it isn't renewed."""
    messages = checked(distributed_lock("x", **arguments), DISTLOCK=STORES)
    assert [message.id for message in messages] == ["distlock.W014"] * is_warned
    if is_warned:
        assert messages[0].msg.startswith("DISTLOCK['default']: store_timeout is 2 seconds, but")
        assert messages[0].hint == "Write ttl=6 or more in distributed_lock(…)."


@pytest.mark.parametrize(
    ("timeout", "is_warned"), [(0, False), (29, False), (30, True), (None, True)]
)
def test_lock_that_outwaits_its_worker_is_warned_of(
    timeout: float | None, is_warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server would end the worker before the lock is granted or refused."""
    waiting = distributed_lock("x", timeout=timeout)
    assert checked(waiting) == []
    messages = checked(waiting, DISTLOCK_WORKER_TIMEOUT=30)
    assert [message.id for message in messages] == ["distlock.W015"] * is_warned
    if is_warned:
        assert messages[0].msg == (
            "DISTLOCK_WORKER_TIMEOUT: a worker is ended after 30 seconds, but waits for its lock "
            f"with timeout={timeout}."
        )
        assert "Write timeout=15 or less" in str(messages[0].hint)
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--timeout 30")
    assert [each.msg.partition(": a ")[0] for each in checked(waiting)] == [
        "GUNICORN_CMD_ARGS: --timeout"
    ] * is_warned


@pytest.mark.parametrize(
    ("options", "settings", "said"),
    [
        ({}, {}, []),
        ({"time_limit": 30}, {}, ["time_limit of tests.collect"]),
        ({"soft_time_limit": 20, "time_limit": 31}, {}, ["soft_time_limit of tests.collect"]),
        ({}, {"task_time_limit": 30}, ["time_limit of tests.collect"]),
        ({"time_limit": 31}, {"task_time_limit": 30}, []),
    ],
)
def test_task_that_outwaits_its_limit_is_warned_of(
    options: dict[str, Any],
    settings: dict[str, Any],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Celery's limits are the task's own, or those of all tasks."""
    app = celery.Celery("checks", set_as_current=False)
    app.conf.update(settings)
    app.task(name="tests.collect", shared=False, **options)(
        distributed_lock("x", timeout=30)(rebuild)
    )
    monkeypatch.setattr(celery, "current_app", app)
    messages = [each for each in check_locks() if each.obj == "tests.collect"]
    assert [message.msg.partition(": a ")[0] for message in messages] == said


def test_site_without_celery_has_no_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not imported for this."""
    monkeypatch.delitem(sys.modules, "celery")
    assert [each for each in check_locks() if "tests.collect" in str(each.obj)] == []
