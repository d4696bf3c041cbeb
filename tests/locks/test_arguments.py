"""A wrong argument is told at once: its name, and what to write instead."""

from __future__ import annotations

import inspect
import math
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django.utils.translation import gettext_lazy
from django.views import View

from django_distlock import (
    aacquire_lock,
    acquire_lock,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.semaphores.validation import InvalidSemaphore
from tests.support.concurrency import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LAZY: Any = gettext_lazy("export")
LONG = int("9" * 4_000) ** 2
"""Of more digits than Python shows."""
NAME = "1234collectPayment"
EXAMPLE = r'@distributed_lock\("<customer_id>collectPayment"\)'


async def aacquire(*args: Any, **kwargs: Any) -> Any:
    return await aacquire_lock(*args, **kwargs)


def aacquire_and_wait(*args: Any, **kwargs: Any) -> Any:
    return run(aacquire(*args, **kwargs))


def in_block(*args: Any) -> None:
    with distributed_lock(*args):
        pass


def in_async_block(*args: Any) -> None:
    async def enter() -> None:
        async with distributed_lock(*args):
            pass

    run(enter())


on_each_entry = pytest.mark.parametrize(
    "enter", [acquire_lock, aacquire_and_wait, distributed_lock], ids=["sync", "async", "class"]
)


@pytest.fixture(autouse=True)
def in_memory() -> Iterator[None]:
    """Keep the locks in memory; an argument is wrong whatever the store."""
    memory = {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}
    with override_settings(DISTLOCK={"default": memory}):
        yield
        store: Any = lock_backends["default"]
        held = [*store.held()]
        store.clear()
        assert held == []


def test_int_has_more_digits_than_python_shows() -> None:
    """Or else the tests would show nothing."""
    with pytest.raises(ValueError, match="digits"):
        repr(LONG)


# Durations


DURATIONS = {
    "timeout": ("from 0 to 315360000 seconds; None waits as long as it takes", [-1, -0.1]),
    "ttl": ("from 0.001 to 315360000 seconds; None means until released", [-1, 0, 0.0001]),
    "min_hold": ("from 0 to 315360000 seconds", [-1, -0.1]),
    "max_hold": ("from 0.001 to 315360000 seconds", [-1, 0, 0.0001]),
}
OUT_OF_RANGE = [math.nan, math.inf, -math.inf, 10**400, LONG, -LONG, 1e300, 315360001]
NO_NUMBERS = ["1", True, False, b"1", [1], object(), LAZY]


@on_each_entry
@pytest.mark.parametrize("name", DURATIONS)
def test_duration_is_a_number_of_seconds(enter: Callable[..., Any], name: str) -> None:
    """No truth, and no text of one."""
    for value in NO_NUMBERS:
        with pytest.raises(TypeError, match=f"^{name} is a number of seconds or None, not "):
            enter(NAME, **{name: value})


@on_each_entry
@pytest.mark.parametrize("name", DURATIONS)
def test_duration_has_bounds(enter: Callable[..., Any], name: str) -> None:
    """Those that each clock can count to."""
    expected, others = DURATIONS[name]
    for value in (*OUT_OF_RANGE, *others):
        with pytest.raises(ValueError, match=f"^{name} is .*, but must be {expected}") as caught:
            enter(NAME, **{name: value})
        assert len(str(caught.value)) < 250


# Other arguments


@on_each_entry
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"renew": "no"}, TypeError, "^renew is True or False, not 'no'"),
        ({"renew": 0}, TypeError, "^renew is True or False, not 0"),
        ({"renew": None}, TypeError, "^renew is True or False, not None"),
        ({"reentrant": "no"}, TypeError, "^reentrant is True or False, not 'no'"),
        ({"reentrant": LONG}, TypeError, "^reentrant is True or False, not an int"),
        ({"label": 5}, TypeError, "^label is a str, not int"),
        ({"label": None}, TypeError, "^label is a str, not NoneType"),
        ({"label": b"why"}, TypeError, "^label is a str, not bytes"),
        ({"label": LAZY}, TypeError, r"^label is a str, not a lazy text: write str\(…\)"),
        ({"label": "x" * 201}, ValueError, "^label has 201 characters, but at most 200"),
        ({"label": "x" * 10_000_000}, ValueError, "^label has 10000000 characters"),
        ({"backend": ["default"]}, TypeError, "^backend is a str, an alias in DISTLOCK, not list"),
        ({"backend": {}}, TypeError, "^backend is a str, an alias in DISTLOCK, not dict"),
        ({"backend": None}, TypeError, "^backend is a str, an alias in DISTLOCK, not NoneType"),
        ({"backend": LAZY}, TypeError, r"^backend is a str.*, not a lazy text: write str\(…\)"),
    ],
)
def test_argument_of_another_type_is_refused(
    enter: Callable[..., Any], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """With its name, before anything is asked; a decorator needs no call for that."""
    with pytest.raises(error, match=message) as caught:
        enter(NAME, **arguments)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("label", ["", "x" * 200, "\U0001f512" * 200])
def test_label_may_have_200_characters(label: str) -> None:
    """Of whatever kind."""
    with distributed_lock(NAME, label=label) as lease:
        assert lease.holder.startswith(label)


def test_holder_is_short_whatever_its_thread_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tells people who it is is kept by the store, too."""
    with monkeypatch.context() as patch:
        patch.setattr(threading.current_thread(), "name", "x" * 10_000_000)
        with distributed_lock(NAME) as lease:
            assert len(lease.holder) < 600
    with distributed_lock(NAME, label="\0" * 200) as lease:
        assert len(lease.holder) < 1_000


@on_each_entry
@pytest.mark.parametrize("semaphore", [5, None, b"x", ["x"], LAZY])
def test_semaphore_of_another_type_is_refused(enter: Callable[..., Any], semaphore: Any) -> None:
    """A lazy text is another semaphore in each language."""
    what = "a lazy text: write str" if semaphore is LAZY else type(semaphore).__name__
    with pytest.raises(TypeError, match=f"^A semaphore is a str.*, not {what}"):
        enter(semaphore)


@pytest.mark.parametrize("backend", [["default"], {}, None, 5, LAZY])
def test_release_by_name_and_the_stores_take_an_alias(backend: Any) -> None:
    """As an acquisition does."""
    for take in (lambda: release_lock(NAME, backend=backend), lambda: lock_backends[backend]):
        with pytest.raises(TypeError, match=r"^backend is a str, an alias in DISTLOCK, not "):
            take()


@pytest.mark.parametrize("value", ["yes", 1, 0, b""])
def test_http_is_a_truth_or_none(value: Any) -> None:
    """Before any request."""
    with pytest.raises(TypeError, match=r"^http is True, False or None, not "):
        distributed_lock(NAME, http=value)


@pytest.mark.parametrize("value", ["skip", 5, True, ["skip"]])
def test_on_conflict_is_callable(value: Any) -> None:
    """The function, not its name."""
    message = r"^on_conflict is a callable, not .*: write on_conflict=skip"
    with pytest.raises(TypeError, match=message):
        distributed_lock(NAME, on_conflict=value)


# What other libraries call it


@on_each_entry
@pytest.mark.parametrize(
    ("argument", "remedy"),
    [
        ("blocking_timeout", "timeout=.* ttl="),
        ("blocking", "timeout="),
        ("sleep", "woken"),
        ("thread_local", "release_lock"),
        ("expire", "ttl="),
        ("auto_renewal", "renew="),
        ("lock_timeout", "ttl="),
        ("auto_release_time", "ttl="),
        ("lease_time", "ttl="),
        ("name", "first argument"),
        ("key", "first argument"),
        ("using", "backend="),
        ("colour", "it takes .*timeout, ttl, renew, label"),
    ],
)
def test_names_of_other_libraries_are_translated(
    enter: Callable[..., Any], argument: str, remedy: str
) -> None:
    """Those of redis-py, python-redis-lock, Pottery and django-pglock."""
    message = f"unexpected keyword argument '{argument}'.*{remedy}"
    with pytest.raises(TypeError, match=message):
        enter(NAME, **{argument: 1})


@pytest.mark.parametrize("entry", [acquire_lock, aacquire_lock, distributed_lock])
def test_signature_has_what_there_is(entry: Any) -> None:
    """The semaphore is needed, the others have defaults; no other can be given, as types say."""
    parameters = inspect.signature(entry).parameters
    assert [name for name in parameters if parameters[name].default is inspect.Parameter.empty] == [
        "semaphore",
        "unknown",
    ]
    assert "Never" in str(parameters["unknown"].annotation)
    assert {"timeout", "ttl", "renew", "label", "backend"} < {*parameters}


# Decorators


def returns_response(request: HttpRequest, customer_id: int) -> HttpResponse:
    """Stand for a view."""
    raise NotImplementedError


def returns_nothing() -> None:
    """Stand for a task."""


async def runs_later(request: Any, customer_id: Any) -> Any:
    """Stand for an async view."""


def yields(customer_id: Any) -> Any:
    """Stand for a generator."""
    yield customer_id


class Payments(View):
    """Stand for a class-based view."""


@pytest.mark.parametrize(
    "function", [returns_response, returns_nothing, runs_later, yields, Payments]
)
def test_missing_parentheses_are_told_at_decoration(function: Any) -> None:
    """Where what is given makes no semaphore, as can be seen."""
    with pytest.raises(TypeError, match=f"{function.__name__}.*{EXAMPLE}"):
        distributed_lock(function)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((5,), {}),
        ((HttpRequest(),), {"customer_id": 5}),
        ((HttpRequest(), 5), {}),
        ((), {"customer_id": 5}),
        ((returns_nothing, 5), {}),
    ],
)
def test_missing_parentheses_are_told_at_the_call(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Where nothing is annotated, that may be a callable for the semaphore."""

    @distributed_lock
    def collect(request: Any, customer_id: Any) -> Any:
        """Collect."""

    called: Any = collect
    with pytest.raises(TypeError, match=EXAMPLE):
        called(*args, **kwargs)


def test_missing_semaphore_is_told_at_decoration() -> None:
    """With what to write."""
    needs: Any = distributed_lock
    for arguments in ({}, {"timeout": 5}):
        with pytest.raises(TypeError, match=EXAMPLE):
            needs(**arguments)


@pytest.mark.parametrize(
    "make",
    [
        lambda customer_id: f"{customer_id}collectPayment",
        str,
        SimpleNamespace(name=NAME).__getattribute__,
    ],
)
def test_callable_that_makes_a_semaphore_is_taken(make: Any) -> None:
    """Whatever kind of callable it is."""
    assert distributed_lock(make)(lambda name: name)("name") == "name"


def by_keyword(*, semaphore: str = NAME) -> distributed_lock:
    return distributed_lock(semaphore=semaphore)


def test_semaphore_may_be_given_by_its_name() -> None:
    """As any argument."""
    with by_keyword() as lease:
        assert lease.semaphore == NAME


# Templates


def collect(request: Any, customer_id: int, *, invoice: str = "") -> str:
    """Stand for what is locked."""
    return "collected"


def collect_any(request: Any, **kwargs: Any) -> str:
    """Stand for what takes anything."""
    return "collected"


@pytest.mark.parametrize(
    ("template", "remedy"),
    [
        ("{customer_id}collectPayment", "<customer_id>"),
        ("{customer_id!r:05}collectPayment", "<customer_id>"),
        ("{request.user.pk}:export", "<request.user.pk>"),
        ("<invoice>:{customer_id}", "<customer_id>"),
        ("{customer_id}:<invoice>", "<customer_id>"),
        ("%(customer_id)s:collect", "<customer_id>"),
        ("$customer_id:collect", "<customer_id>"),
        ("${customer_id}:collect", "<customer_id>"),
        ("{}:collect", "<name>"),
        ("{0:05}:collect", "<name>"),
    ],
)
def test_placeholder_of_another_style_is_refused(template: str, remedy: str) -> None:
    """It would be one lock for all customers."""
    with pytest.raises(ValueError, match=f"Template .*one lock.* write {remedy}"):
        distributed_lock(template)(collect)


@pytest.mark.parametrize("template", ["{customer_id}collectPayment", "{jobs}:<customer_id>"])
def test_braces_are_refused_where_any_argument_may_come(template: str) -> None:
    """Methods of class-based views are written so."""
    with pytest.raises(ValueError, match="give a callable"):
        distributed_lock(template)(collect_any)


@pytest.mark.parametrize(
    "template",
    [
        "{jobs}collectPayment",
        "<customer_id>:{jobs}",
        "100%",
        "$5",
        "{a b}",
        "}{",
        "%s",
        '{"customer_id"}',
    ],
)
def test_braces_that_name_no_argument_are_a_part_of_the_semaphore(template: str) -> None:
    """As they are with acquire_lock()."""
    assert distributed_lock(template)(collect)(None, 5) == "collected"


def test_callable_may_return_what_looks_like_a_template() -> None:
    """What is meant literally is written so."""

    @distributed_lock(lambda request, **kwargs: "<customer_id>{customer_id}")
    def literally(request: Any, **kwargs: Any) -> str:
        return "collected"

    assert literally(None, customer_id=5) == "collected"


@pytest.mark.parametrize(
    "semaphore", ["<id>x", "<int:id>x", "<path:id>x", "x:<request.user.pk>", "<slug:a>:<str:b>"]
)
def test_template_without_a_call_is_refused(semaphore: str) -> None:
    """It would be one lock for all; an f-string is what is meant."""
    for enter in (acquire_lock, aacquire_and_wait, in_block, in_async_block):
        with pytest.raises(TypeError, match=r"a decorated call.*f-string"):
            enter(semaphore)


@pytest.mark.parametrize("semaphore", ["<", "a>b", "<>", "<5>", "<a b>", "<a:>", "<<>>", "<-id>"])
def test_semaphore_may_have_angle_brackets(semaphore: str) -> None:
    """Around anything but the name of an argument."""
    lease = acquire_lock(semaphore)
    assert lease
    lease.release()
    with distributed_lock(semaphore):
        pass


def test_int_of_too_many_digits_is_an_invalid_semaphore() -> None:
    """Python refuses to write it; a view answers 400."""
    for template in ("<customer_id>:x", "<int:customer_id>:x"):
        locked = distributed_lock(template)(collect)
        for number in (LONG, -LONG):
            with pytest.raises(InvalidSemaphore, match=r"customer_id> .*digits"):
                locked(None, number)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("<request.usr.pk>:x", "'usr'"),
        ("<request.user.pk>:x", "'NoneType' object has no attribute 'pk'"),
        ("<int:request.user.pk>:x", "'NoneType' object has no attribute 'pk'"),
    ],
)
def test_attribute_that_fails_is_told_with_its_template(template: str, reason: str) -> None:
    """Whose attribute it is would not be known otherwise."""
    request = SimpleNamespace(user=None)
    with pytest.raises(AttributeError, match=f"^Template '{template}': {template[:-2]}.*{reason}"):
        distributed_lock(template)(collect)(request, 5)

    @distributed_lock(template)
    async def acollect(request: Any) -> None:
        raise NotImplementedError

    with pytest.raises(AttributeError, match=f"^Template '{template}': "):
        run(acollect(request))


def test_attribute_that_fails_is_no_bad_request() -> None:
    """The mistake is the site's."""

    @distributed_lock("<request.usr.pk>:x", http=True)
    def view(request: HttpRequest) -> HttpResponse:
        raise NotImplementedError

    with pytest.raises(AttributeError, match="Template"):
        view(RequestFactory().get("/"))


def test_error_of_the_view_itself_is_left_alone() -> None:
    """Its AttributeError has nothing to do with the lock."""

    @distributed_lock("<customer.pk>:x")
    def view(customer: Any) -> None:
        customer.colour  # noqa: B018

    with pytest.raises(AttributeError) as caught:
        view(SimpleNamespace(pk=5))
    assert "Template" not in str(caught.value)
