"""A wrong argument is refused at once: the message names it and the right form."""

from __future__ import annotations

import inspect
import math
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.utils.translation import gettext_lazy

from django_distlock import (
    aacquire_lock,
    acquire_lock,
    distributed_lock,
    lock_backends,
    release_lock,
)

if TYPE_CHECKING:
    from collections.abc import Callable
from tests.support.entries import LONG, NAME, aacquire_and_wait

pytestmark = pytest.mark.usefixtures("in_memory")


LAZY: Any = gettext_lazy("export")


on_each_entry = pytest.mark.parametrize(
    "enter", [acquire_lock, aacquire_and_wait, distributed_lock], ids=["sync", "async", "class"]
)


def test_int_has_more_digits_than_python_shows() -> None:
    """Otherwise the tests would prove nothing."""
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
    """Neither a boolean nor a text."""
    for value in NO_NUMBERS:
        with pytest.raises(TypeError, match=f"^{name} is a number of seconds or None, not "):
            enter(NAME, **{name: value})


@on_each_entry
@pytest.mark.parametrize("name", DURATIONS)
def test_duration_has_bounds(enter: Callable[..., Any], name: str) -> None:
    """Every clock can represent them."""
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
    """The message names it, before the store is asked; a decorator raises at import."""
    with pytest.raises(error, match=message) as caught:
        enter(NAME, **arguments)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("label", ["", "x" * 200, "\U0001f512" * 200])
def test_label_may_have_200_characters(label: str) -> None:
    """Characters of any kind."""
    with distributed_lock(NAME, label=label) as lease:
        assert lease.holder.startswith(label)


def test_holder_is_short_even_with_a_long_thread_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store keeps the text that describes the holder, too."""
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
    """Like an acquisition."""
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
    """It must be the function, not its name."""
    message = r"^on_conflict is a callable, not .*: write on_conflict=skip"
    with pytest.raises(TypeError, match=message):
        distributed_lock(NAME, on_conflict=value)


# Names of other libraries


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
def test_signatures_have_the_documented_arguments(entry: Any) -> None:
    """The semaphore is required, the others have defaults, and no others are accepted."""
    parameters = inspect.signature(entry).parameters
    assert [name for name in parameters if parameters[name].default is inspect.Parameter.empty] == [
        "semaphore",
        "unknown",
    ]
    assert "Never" in str(parameters["unknown"].annotation)
    assert {"timeout", "ttl", "renew", "label", "backend"} < {*parameters}
