"""What others see of a decorated callable: all that they would see without the decorator."""

from __future__ import annotations

import functools
import inspect
import typing
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from django.utils.decorators import method_decorator
from django.views import View
from pydantic import ValidationError, validate_call

from django_distlock import distributed_lock
from django_distlock.semaphores.signatures import copy_signature, seen_signature

if TYPE_CHECKING:
    from decimal import Decimal

    from tests.support.scripted_store import ScriptedBackend

lock = distributed_lock("<customer_id>collectPayment")


@lock
def collect(
    customer_id: int, *lines: str, amount: Annotated[int, "cents"] = 0, **options: Any
) -> None:
    """Collect."""


@lock
def collect_later(customer_id: int, receipt: Receipt | None = None) -> Receipt:
    """Collect for a receipt whose class is not there yet."""
    raise NotImplementedError


early_annotations = dict(collect_later.__annotations__)


class Receipt:
    """What is missing while the function above is decorated."""

    @lock
    def collect(self, customer_id: int) -> Receipt:
        """Collect."""
        raise NotImplementedError


@lock
def collect_unnamed(customer_id: int, amount: Decimal) -> Decimal:
    """Collect what is only named for a type checker."""
    raise NotImplementedError


@lock
@distributed_lock("<customer_id>:more")
def collect_twice_locked(customer_id: int) -> int:
    """Collect."""
    raise NotImplementedError


def test_decorated_callable_keeps_its_looks() -> None:
    """Its name, where it is from, and what it is for."""
    plain: Any = inspect.unwrap(collect)
    assert plain is not collect
    assert (collect.__name__, collect.__doc__) == ("collect", "Collect.")
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(collect, name) == getattr(plain, name)
    assert not inspect.iscoroutinefunction(collect)


def test_signature_is_the_functions_own() -> None:
    """With annotations that are no longer strings."""
    plain = inspect.unwrap(collect)
    assert inspect.signature(collect) == inspect.signature(plain, eval_str=True)
    assert inspect.signature(collect, follow_wrapped=False) == inspect.signature(collect)
    assert [*inspect.signature(Receipt().collect).parameters] == ["customer_id"]
    assert inspect.signature(collect_twice_locked).return_annotation is int


def test_full_argspec_is_the_functions_own() -> None:
    """It doesn't look at what is wrapped."""
    seen = inspect.getfullargspec(collect)
    assert (seen.args, seen.varargs, seen.varkw) == (["customer_id"], "lines", "options")
    assert (seen.kwonlyargs, seen.kwonlydefaults) == (["amount"], {"amount": 0})
    assert seen.annotations["amount"] == Annotated[int, "cents"]


def test_type_hints_are_the_functions_own() -> None:
    """Those too that had no meaning yet when it was decorated."""
    plain = inspect.unwrap(collect)
    for extras in (False, True):
        seen = typing.get_type_hints(collect, include_extras=extras)
        assert seen == typing.get_type_hints(plain, include_extras=extras)
    hints = typing.get_type_hints(collect_later)
    assert hints == {"customer_id": int, "receipt": Receipt | None, "return": Receipt}
    assert typing.get_type_hints(Receipt.collect)["return"] is Receipt


def test_name_that_does_not_exist_stays_a_string() -> None:
    """And keeps no other annotation from being evaluated."""
    assert early_annotations == {
        "customer_id": int,
        "receipt": "Receipt | None",
        "return": "Receipt",
    }
    seen = inspect.signature(collect_unnamed)
    annotations = [parameter.annotation for parameter in seen.parameters.values()]
    assert [*annotations, seen.return_annotation] == [int, "Decimal", "Decimal"]
    assert inspect.signature(collect_later).parameters["receipt"].annotation == "Receipt | None"


def test_functions_own_annotations_do_not_change() -> None:
    """Others may know the function without its lock."""
    assert inspect.unwrap(collect).__annotations__["customer_id"] == "int"


def test_pydantic_validates_the_calls_of_a_locked_function(scripted: ScriptedBackend) -> None:
    """It converts arguments before the lock is acquired."""

    @validate_call
    @lock
    def validated(customer_id: int) -> int:
        return customer_id

    assert validated("1234") == 1234  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        validated("twelve")  # type: ignore[arg-type]


def test_method_decorator_shows_the_methods_own_signature() -> None:
    """What it copies from a dummy that it decorates isn't a signature."""

    class Collecting(View):
        @method_decorator(lock)
        def get(self, request: int, customer_id: int) -> None: ...

    assert [*inspect.signature(Collecting.get).parameters] == ["self", "request", "customer_id"]
    assert "__signature__" not in vars(Collecting.get)


def test_callable_without_globals_and_annotations_is_shown_unchanged(
    scripted: ScriptedBackend,
) -> None:
    """A partial, or what isn't written in Python."""
    partial: Any = distributed_lock("<customer_id>")(functools.partial(collect, amount=5))
    assert [*inspect.getfullargspec(partial).args] == ["customer_id"]
    length = distributed_lock("<obj>")(len)
    assert (length("abc"), [*inspect.signature(length).parameters]) == (3, ["obj"])


def test_type_parameters_are_known() -> None:
    """They are no names of the module; only later Pythons have a syntax for them."""

    def generic(customer_id: Any) -> Any:
        raise NotImplementedError

    parameter: Any = typing.AnyStr
    untyped: Any = generic
    untyped.__type_params__ = (parameter,)
    untyped.__annotations__ = {"customer_id": "AnyStr", "return": "list[AnyStr]"}
    seen = seen_signature(generic)
    assert seen.parameters["customer_id"].annotation is parameter
    assert seen.return_annotation == list[parameter]


def test_signature_of_anything_is_not_taken_over() -> None:
    """But its annotations are."""

    def anything(*args: int, **kwargs: str) -> bool:
        raise NotImplementedError

    def locked() -> None:
        raise NotImplementedError

    copy_signature(locked, anything)
    assert "__signature__" not in vars(locked)
    assert locked.__annotations__ == {"args": int, "kwargs": str, "return": bool}
