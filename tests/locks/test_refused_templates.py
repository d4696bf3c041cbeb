"""Missing parentheses, and templates that would make one lock for all calls, are refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.views import View

from django_distlock import acquire_lock, distributed_lock
from django_distlock.semaphores.validation import InvalidSemaphore
from tests.support.concurrency import run
from tests.support.entries import LONG, NAME, aacquire_and_wait

pytestmark = pytest.mark.usefixtures("in_memory")


EXAMPLE = r'@distributed_lock\("<customer_id>collectPayment"\)'


def in_block(*args: Any) -> None:
    with distributed_lock(*args):
        pass


def in_async_block(*args: Any) -> None:
    async def enter() -> None:
        async with distributed_lock(*args):
            pass

    run(enter())


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
def test_missing_parentheses_are_reported_at_decoration(function: Any) -> None:
    """If the argument clearly makes no semaphore."""
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
def test_missing_parentheses_are_reported_at_the_call(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Without annotations the function may be a callable for the semaphore."""

    @distributed_lock
    def collect(request: Any, customer_id: Any) -> Any:
        """Collect."""

    called: Any = collect
    with pytest.raises(TypeError, match=EXAMPLE):
        called(*args, **kwargs)


def test_missing_semaphore_is_reported_at_decoration() -> None:
    """The error says what to write."""
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
    """Any kind of callable."""
    assert distributed_lock(make)(lambda name: name)("name") == "name"


def by_keyword(*, semaphore: str = NAME) -> distributed_lock:
    return distributed_lock(semaphore=semaphore)


def test_semaphore_may_be_given_by_its_name() -> None:
    """As a keyword argument."""
    with by_keyword() as lease:
        assert lease.semaphore == NAME


# Templates


def collect(request: Any, customer_id: int, *, invoice: str = "") -> str:
    """Stand for a locked function."""
    return "collected"


def collect_any(request: Any, **kwargs: Any) -> str:
    """Stand for a function that takes any arguments."""
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
    """Methods of class-based views have such signatures."""
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
    """As with acquire_lock()."""
    assert distributed_lock(template)(collect)(None, 5) == "collected"


def test_callable_may_return_what_looks_like_a_template() -> None:
    """A callable is the way to write a literal semaphore."""

    @distributed_lock(lambda request, **kwargs: "<customer_id>{customer_id}")
    def literally(request: Any, **kwargs: Any) -> str:
        return "collected"

    assert literally(None, customer_id=5) == "collected"


@pytest.mark.parametrize(
    "semaphore", ["<id>x", "<int:id>x", "<path:id>x", "x:<request.user.pk>", "<slug:a>:<str:b>"]
)
def test_template_without_a_call_is_refused(semaphore: str) -> None:
    """It would be one lock for all; an f-string was meant."""
    for enter in (acquire_lock, aacquire_and_wait, in_block, in_async_block):
        with pytest.raises(TypeError, match=r"a decorated call.*f-string"):
            enter(semaphore)


@pytest.mark.parametrize("semaphore", ["<", "a>b", "<>", "<5>", "<a b>", "<a:>", "<<>>", "<-id>"])
def test_semaphore_may_have_angle_brackets(semaphore: str) -> None:
    """Around any text but the name of an argument."""
    lease = acquire_lock(semaphore)
    assert lease
    lease.release()
    with distributed_lock(semaphore):
        pass


def test_int_of_too_many_digits_is_an_invalid_semaphore() -> None:
    """Python refuses to convert it; a view answers 400."""
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
def test_failing_attribute_is_reported_with_its_template(template: str, reason: str) -> None:
    """Otherwise the attribute's origin would be unknown."""
    request = SimpleNamespace(user=None)
    with pytest.raises(AttributeError, match=f"^Template '{template}': {template[:-2]}.*{reason}"):
        distributed_lock(template)(collect)(request, 5)

    @distributed_lock(template)
    async def acollect(request: Any) -> None:
        raise NotImplementedError

    with pytest.raises(AttributeError, match=f"^Template '{template}': "):
        run(acollect(request))


def test_failing_attribute_is_not_a_bad_request() -> None:
    """The bug is the site's."""

    @distributed_lock("<request.usr.pk>:x", http=True)
    def view(request: HttpRequest) -> HttpResponse:
        raise NotImplementedError

    with pytest.raises(AttributeError, match="Template"):
        view(RequestFactory().get("/"))


def test_error_of_the_view_itself_propagates() -> None:
    """Its AttributeError has nothing to do with the lock."""

    @distributed_lock("<customer.pk>:x")
    def view(customer: Any) -> None:
        customer.colour  # noqa: B018

    with pytest.raises(AttributeError) as caught:
        view(SimpleNamespace(pk=5))
    assert "Template" not in str(caught.value)
