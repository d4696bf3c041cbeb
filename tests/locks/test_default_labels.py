"""The label of a lock whose code gave none: the name of the view, function, task or command."""

from __future__ import annotations

import functools
from importlib import import_module
from types import MethodType
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from django.http import HttpResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View

from django_distlock import acquire_lock, distributed_lock, lock_backends, release_lock
from django_distlock.arguments import LONGEST_LABEL
from django_distlock.integrations.tasks import task_scope
from django_distlock.leases.cleanup import connect_celery
from django_distlock.leases.request import describe_holder
from django_distlock.locks.labels import bounded, command_label
from tests.support.concurrency import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.test import Client

lock = distributed_lock("report", backend="memory")


def label() -> str:
    """Return the label of the lock that is held, as operators see it."""
    [held] = lock_backends["memory"].held("report")
    assert held.process == describe_holder()
    return held.label


def label_of_block() -> str:
    """Return the label of a lock that a block acquires here."""
    with distributed_lock("report", backend="memory"):
        return label()


@pytest.fixture
def run_by(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that sets the command line of this process."""

    def set_arguments(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", [*arguments])
        command_label.cache_clear()

    yield set_arguments
    monkeypatch.undo()
    command_label.cache_clear()


@lock
def function() -> str:
    """Return the label under the lock."""
    return label()


@lock
def view(request: Any) -> HttpResponse:
    """Answer with the label."""
    return HttpResponse(label())


class OnMethod(View):
    """A view with a locked method."""

    @lock
    def get(self, request: Any) -> HttpResponse:
        """Answer with the label."""
        return HttpResponse(label())


@method_decorator(lock, name="get")
class ByMethodDecorator(View):
    """The same, decorated on the class."""

    def get(self, request: Any) -> HttpResponse:
        """Answer with the label."""
        return HttpResponse(label())


@method_decorator(lock, name="dispatch")
class OnDispatch(View):
    """A view whose dispatch(), which Django defines, is decorated on the class."""

    def get(self, request: Any) -> HttpResponse:
        """Answer with the label."""
        return HttpResponse(label())


class Inherited(ByMethodDecorator):
    """A view that inherits its locked method."""

    @classmethod
    def of_class(cls) -> str:
        """Return the label."""
        return label()


def block_in_view(request: Any) -> HttpResponse:
    """Answer with the label of a block."""
    return HttpResponse(label_of_block())


urlpatterns = [
    path("view/", view),
    path("method/", OnMethod.as_view()),
    path("method-decorator/", ByMethodDecorator.as_view()),
    path("dispatch/", OnDispatch.as_view()),
    path("inherited/", Inherited.as_view()),
    path("block/", block_in_view),
]


def test_decorated_function_is_named_with_its_module() -> None:
    """In sync and in async code."""
    assert function() == f"{__name__}.function"

    @lock
    async def afunction() -> None:
        [held] = lock_backends["memory"].held("report")
        assert held.label == f"{__name__}.{afunction.__qualname__}"

    run(afunction())


@pytest.mark.urls(__name__)
@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/view/", "view"),
        ("/method/", "OnMethod.get"),
        ("/method-decorator/", "ByMethodDecorator.get"),
        ("/dispatch/", "OnDispatch.dispatch"),
        ("/inherited/", "Inherited.get"),
    ],
)
def test_view_is_named(client: Client, url: str, name: str) -> None:
    """A function, or the method of a class."""
    assert client.get(url).content.decode() == f"{__name__}.{name}"


@pytest.mark.urls(__name__)
def test_block_in_a_view_has_no_label(client: Client, run_by: Any) -> None:
    """The name of the command that serves requests would say nothing."""
    run_by("manage.py", "runserver")
    assert client.get("/block/").content == b""


def test_given_label_wins(run_by: Any) -> None:
    """Over every default."""
    run_by("manage.py", "nightly")
    assert distributed_lock("report", label="mine", backend="memory")(label)() == "mine"
    with distributed_lock("report", label="mine", backend="memory"):
        assert label() == "mine"
    assert acquire_lock("report", label="mine", backend="memory")
    assert label() == "mine"
    release_lock("report", backend="memory")


class Report:
    """A callable object."""

    def __call__(self) -> str:
        """Return the label."""
        return label()


@pytest.mark.parametrize(
    ("called", "name"),
    [
        (Report(), "Report"),
        (functools.partial(label), "label"),
        (functools.partial(functools.partial(Report())), "Report"),
        (Report().__call__, "Report.__call__"),
        (Inherited.of_class, "Inherited.of_class"),
        (MethodType(functools.partial(lambda _: label()), Report()), "Report.partial"),
    ],
)
def test_callable_is_named_by_the_function_that_it_calls(called: Any, name: str) -> None:
    """Or else by its type."""
    assert lock(called)() == f"{__name__}.{name}"


def test_long_name_is_cut_at_its_beginning() -> None:
    """Its end says more, and a store has limits."""

    def called() -> str:
        return label()

    called.__qualname__ = "outer." * 50 + "called"
    with task_scope("outer." * 50 + "called"):
        of_task = label_of_block()
    for held in (lock(called)(), of_task):
        assert len(held) == LONGEST_LABEL
        assert held.startswith("…")
        assert held.endswith("outer.outer.called")
    assert bounded("x" * LONGEST_LABEL) == "x" * LONGEST_LABEL


def test_method_of_a_command_is_named_by_the_command() -> None:
    """However the command is called."""
    collect_payment: Any = import_module("tests.app.management.commands.collect_payment")

    def handle() -> str:
        return label()

    handle.__module__ = collect_payment.Command.handle.__module__
    assert lock(handle)() == "collect_payment"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["manage.py", "nightly", "--quickly"], "nightly"),
        (["/srv/site/manage.py", "nightly"], "nightly"),
        (["/usr/bin/django-admin", "nightly"], "nightly"),
        (["/lib/django/__main__.py", "nightly"], "nightly"),
        (["manage.py"], ""),
        (["manage.py", "--version"], ""),
        (["/usr/bin/celery", "worker"], ""),
        (["/lib/gunicorn/__main__.py", "site.wsgi"], ""),
        ([], ""),
    ],
)
def test_block_in_a_command_is_named_by_the_command(
    run_by: Any, arguments: list[str], name: str
) -> None:
    """Where manage.py or django-admin runs it."""
    run_by(*arguments)
    assert label_of_block() == name


def test_block_in_a_celery_task_is_named_by_the_task(run_by: Any) -> None:
    """Not by the command that runs the worker."""
    run_by("manage.py", "nightly")
    connect_celery()  # unless it was imported before Django's apps were ready
    app = Celery("labels", set_as_current=False)
    app.conf.task_always_eager = True
    inner = app.task(label_of_block, name="shop.inner")

    def work() -> list[str]:
        return [inner.delay().result, label_of_block()]

    outer = app.task(work, name="shop.outer")
    assert outer.delay().result == ["shop.inner", "shop.outer"]
    assert label_of_block() == "nightly"


def test_decorated_function_in_a_celery_task_is_named_by_the_task() -> None:
    """Its own function, and one that it calls. Outside a task, it is named by itself."""
    connect_celery()
    app = Celery("labels", set_as_current=False)
    app.conf.task_always_eager = True
    own = app.task(function, name="shop.own")

    def call() -> str:
        return function()

    calling = app.task(call, name="shop.calling")
    assert own.delay().result == "shop.own"
    assert calling.delay().result == "shop.calling"
    assert function() == f"{__name__}.function"


def test_block_in_a_task_of_django_is_named_by_the_task(settings: Any) -> None:
    """New in Django 6.0."""
    tasks = pytest.importorskip("django.tasks")
    settings.TASKS = {"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}
    task = tasks.task(label_of_block)
    assert task.enqueue().return_value == f"{__name__}.label_of_block"
