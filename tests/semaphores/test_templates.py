"""How a template is parsed, and filled with the arguments of a call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from django_distlock import distributed_lock
from django_distlock.semaphores.templates import SemaphoreTemplate
from django_distlock.semaphores.validation import InvalidSemaphore
from tests.support.templates import collect, render


def anything(*args: Any, **kwargs: Any) -> None:
    """Stand for a function that takes whatever it gets."""


# Templates


def test_customer_id_and_text_are_exactly_joined() -> None:
    """The semaphore of the documentation's first example."""
    name = SemaphoreTemplate("<customer_id>collectPayment").for_calls_of(collect)
    assert name(1234) == "1234collectPayment"


def test_positional_and_keyword_calls_give_the_same_semaphore() -> None:
    """How an argument is passed makes no other lock."""
    name = SemaphoreTemplate("<customer_id>:<invoice>").for_calls_of(collect)
    assert name(1, invoice="a") == name(customer_id=1, invoice="a") == "1:a"


def test_default_of_an_argument_is_its_value() -> None:
    """An argument that the call leaves out has its default."""
    name = SemaphoreTemplate("<customer_id>:<invoice>").for_calls_of(collect)
    assert name(1) == "1:first"


def test_members_of_kwargs_are_arguments() -> None:
    """A view that takes **kwargs gets the URL's arguments there."""
    name = SemaphoreTemplate("pay:<pk>").for_calls_of(anything)
    assert name(pk=5) == "pay:5"


def test_call_without_a_member_of_kwargs_is_refused() -> None:
    """A name that only **kwargs could have, but hasn't, is an error of the call."""
    name = SemaphoreTemplate("pay:<pk>").for_calls_of(anything)
    with pytest.raises(ValueError, match="this call has no argument 'pk'"):
        name(key=5)


def test_dotted_name_follows_attributes() -> None:
    """<request.user.pk> is the primary key of the request's user."""

    def view(request: Any) -> None: ...

    name = SemaphoreTemplate("<request.user.pk>:export").for_calls_of(view)
    request = SimpleNamespace(user=SimpleNamespace(pk=17))
    assert name(request) == "17:export"


def test_missing_attribute_is_an_attribute_error() -> None:
    """The error has Python's own message, and the placeholder."""
    with pytest.raises(AttributeError, match=r"<customer\.colour> can't be read: .*colour"):
        render("<customer.colour>", customer=SimpleNamespace())


def test_argument_that_occurs_twice_is_filled_in_twice() -> None:
    """Two placeholders may have the same name."""
    assert render("<a>/<a>", a=1) == "1/1"


def test_template_without_placeholders_is_the_semaphore() -> None:
    """Every call of the function then has one lock."""
    assert SemaphoreTemplate("nightly report").for_calls_of(collect)(1) == "nightly report"


@pytest.mark.parametrize("text", ["", "x" * 256, "a\nb", "\ud800"])
def test_template_without_placeholders_is_validated_at_once(text: str) -> None:
    """What no call can make valid is refused when the template is made."""
    with pytest.raises(InvalidSemaphore):
        SemaphoreTemplate(text)


@pytest.mark.parametrize("text", ["<a>" + "x" * 256, "<a>\n", "\x7f<a>", "<a>\ud800", "\0<a>:<b>"])
def test_template_that_is_never_valid_is_refused_at_once(text: str) -> None:
    """What stands beside the placeholders stays in every semaphore."""
    with pytest.raises(InvalidSemaphore):
        SemaphoreTemplate(text)


@pytest.mark.parametrize("literal", ["%", "%s", "%%", "%(a)s", "{a}", "{}", "\\1", "$a"])
def test_literal_text_is_kept_as_it_is(literal: str) -> None:
    """Only <name> is a placeholder."""
    assert render(f"{literal}<a>{literal}", a=1) == f"{literal}1{literal}"


def test_name_that_the_callable_cannot_have_is_refused_at_decoration() -> None:
    """A typing error raises at import, and the message lists the names."""
    expected = "no argument 'costumer_id' for <costumer_id>; it has: customer_id, invoice"
    with pytest.raises(ValueError, match=expected):
        distributed_lock("<costumer_id>collectPayment")(collect)


def test_callable_must_have_the_root_of_a_dotted_name() -> None:
    """Attributes are known only at the call; the argument at decoration."""
    with pytest.raises(ValueError, match=r"no argument 'request' for <request\.user\.pk>"):
        SemaphoreTemplate("<request.user.pk>").for_calls_of(collect)


def test_placeholder_cannot_name_variable_positional_arguments() -> None:
    """A tuple has no text; what is passed by keyword has a name."""

    def collect_all(first: int, *others: int) -> None: ...

    def collect_any(*args: int, **kwargs: int) -> None: ...

    with pytest.raises(ValueError, match="no argument 'others' for <others>; it has: first"):
        SemaphoreTemplate("<others>").for_calls_of(collect_all)
    assert SemaphoreTemplate("<args>").for_calls_of(collect_any)(args=1) == "1"


def test_placeholder_of_a_callable_without_arguments_is_refused() -> None:
    """The message stays readable when there are no names to list."""

    def nightly() -> None: ...

    with pytest.raises(ValueError, match="it has: none"):
        SemaphoreTemplate("<a>").for_calls_of(nightly)


@pytest.mark.parametrize(
    "name", ["", " ", "a b", " a", "a ", "1", "a-b", "a.", ".a", "a..b", "a()"]
)
def test_placeholder_with_an_invalid_name_is_refused(name: str) -> None:
    """Between < and > stands an argument, or an attribute of it."""
    with pytest.raises(ValueError, match="is not the name of an argument or of its attribute"):
        SemaphoreTemplate(f"<{name}>:x")


@pytest.mark.parametrize("text", ["<", ">", "<a", "a>", "<<a>>", "<a>>", "<a<b>", "><", "a < b"])
def test_stray_angle_bracket_is_refused(text: str) -> None:
    """A half-written placeholder is not taken for text."""
    with pytest.raises(ValueError, match="only stand around the name of an argument"):
        SemaphoreTemplate(text)


@pytest.mark.parametrize(
    "separator", ["", "a", "7", "-", ".", "_", "~", "%", "%3A", "collect", "-to-"]
)
def test_separator_that_a_value_could_contain_is_refused(separator: str) -> None:
    """("1", "23") and ("12", "3") must not have one lock."""
    with pytest.raises(ValueError, match="two different calls could get one lock"):
        SemaphoreTemplate(f"<a>{separator}<b>")


def test_each_separator_has_to_separate() -> None:
    """One good separator doesn't make up for a bad one."""
    with pytest.raises(ValueError, match="two different calls could get one lock"):
        SemaphoreTemplate("<a>:<b>-<c>")


@pytest.mark.parametrize("separator", [":", "/", "|", " ", "é", "+", ",", "-:-", "a/b"])
def test_separator_that_no_value_can_contain_is_accepted(separator: str) -> None:
    """One such character is enough, and is kept."""
    assert render(f"<a>{separator}<b>", a=1, b=2) == f"1{separator}2"


def test_ambiguous_template_is_refused_at_decoration() -> None:
    """Not at the first call."""
    with pytest.raises(ValueError, match="'<customer_id><invoice>'"):
        distributed_lock("<customer_id><invoice>")(collect)
