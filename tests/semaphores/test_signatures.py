"""How the signature of a decorated callable is found, and a call's arguments bound to it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
from django.utils.decorators import method_decorator

from django_distlock import distributed_lock
from django_distlock.semaphores.signatures import argument_binder, bind_arguments, call_signature
from django_distlock.semaphores.templates import SemaphoreTemplate

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable
from tests.support.templates import collect

# Signatures


def test_method_decorator_hides_self_from_the_signature() -> None:
    """The signature of its partial of a bound method claims to take `self`, but doesn't."""
    seen: list[inspect.Signature] = []

    def spy(function: Callable[..., Any]) -> Callable[..., Any]:
        seen.append(call_signature(function))
        return function

    class Collector:
        @method_decorator(spy)
        def collect(self, customer_id: int) -> int:
            return customer_id

    assert Collector().collect(1) == 1
    assert [*seen[-1].parameters] == ["customer_id"]


def test_ordinary_wrapper_shows_the_wrapped_signature() -> None:
    """A decorator that uses functools.wraps takes what the function below takes."""
    wrapped = distributed_lock("<customer_id>:x")(collect)
    assert [*call_signature(wrapped).parameters] == ["customer_id", "invoice"]


def test_call_that_python_would_refuse_is_refused_likewise() -> None:
    """With a TypeError, like the call itself."""
    name = SemaphoreTemplate("<customer_id>").for_calls_of(collect)
    with pytest.raises(TypeError, match="missing a required argument: 'customer_id'"):
        name()
    with pytest.raises(TypeError, match="unexpected keyword argument 'page'"):
        name(1, page=2)


def test_arguments_of_a_decorator_below_are_its_own() -> None:
    """A wrapper that shows the wrapped signature may take more, as paginators do."""

    @functools.wraps(collect)
    def paginated(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError

    name = SemaphoreTemplate("<customer_id>").for_calls_of(paginated)
    assert name(customer_id=1, page=2) == "1"


@pytest.mark.parametrize(
    ("args", "kwargs", "customer_id"),
    [
        ((1, 2), {}, 1),
        ((1,), {"page": 2}, 1),
        ((), {"page": 2, "customer_id": 1}, 1),
        ((7,), {}, 7),
    ],
)
def test_arguments_may_be_given_by_position_or_by_name(
    args: tuple[int, ...], kwargs: dict[str, int], customer_id: int
) -> None:
    """In any order, with or without those that have a default."""

    def view(customer_id: int, page: int = 1) -> None: ...

    assert argument_binder(call_signature(view))(args, kwargs)["customer_id"] == customer_id


@pytest.mark.parametrize(
    ("args", "kwargs"), [((1,), {"customer_id": 1}), ((1, 2, 3), {}), ((), {"page": 2, "p": 1})]
)
def test_wrong_arguments_are_refused_as_by_the_function(
    args: tuple[int, ...], kwargs: dict[str, int]
) -> None:
    """Even if there are as many as parameters."""

    def view(customer_id: int, page: int = 1) -> None: ...

    with pytest.raises(TypeError, match="argument"):
        argument_binder(call_signature(view))(args, kwargs)


def test_bound_arguments_hold_defaults_and_the_members_of_kwargs() -> None:
    """All that a template may name, but neither *args nor **kwargs themselves."""

    def view(request: str, page: int = 1, *rest: int, **options: str) -> None: ...

    bound = bind_arguments(call_signature(view), ("r", 2, 3), {"sort": "up"})
    assert bound == {"request": "r", "page": 2, "sort": "up"}
    assert bind_arguments(call_signature(view), ("r",), {}) == {"request": "r", "page": 1}
