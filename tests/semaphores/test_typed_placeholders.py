"""Typed placeholders: all spellings of one value make one semaphore, or none."""

from __future__ import annotations

import re
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User

from django_distlock import distributed_lock
from django_distlock.semaphores.templates import SemaphoreTemplate
from django_distlock.semaphores.validation import InvalidSemaphore
from tests.support.templates import IDENTITY, Level, Shouting, collect

# Typed placeholders

FULLWIDTH_ZERO = "\uff10"


@pytest.mark.parametrize(
    ("placeholder", "text", "values"),
    [
        ("<int:a>", "7", [7, Level.TOP, "7", "007", Shouting("07"), "0" * 10_000 + "7"]),
        ("<int:a>", "-7", [-7, "-7", "-07"]),
        ("<int:a>", "0", [0, "0", "000", "-0"]),
        ("<int:a>", "70", [70, "70", "070"]),
        ("<uuid:a>", str(IDENTITY), [IDENTITY, str(IDENTITY).upper(), IDENTITY.hex, IDENTITY.urn]),
        ("<uuid:a>", f"{UUID(int=0)}", [UUID(int=0), f"{{{UUID(int=0)}}}", FULLWIDTH_ZERO * 32]),
        ("<slug:a>", "a-B_9", ["a-B_9", Shouting("a-B_9")]),
        ("<str:a>", "07%20a", ["07 a"]),
        ("<str:a>", "7", [7, "7"]),
        ("<str:a>", str(IDENTITY), [IDENTITY]),
    ],
)
def test_typed_placeholder_makes_one_text_of_each_spelling(
    placeholder: str, text: str, values: list[object]
) -> None:
    """The text of the value itself."""
    template = SemaphoreTemplate(f"{placeholder}|")
    for value in values:
        assert template.fill([value]) == template.render({"a": value}) == f"{text}|"
    assert template.names == ["a"]


@pytest.mark.parametrize(
    ("placeholder", "texts"),
    [
        (
            "<int:a>",
            [
                "",
                " 7",
                "7 ",
                "7\n",
                "+7",
                "0_7",
                FULLWIDTH_ZERO,
                "\u0667",
                "0x7",
                "7.0",
                "-",
                "--7",
                "a",
            ],
        ),
        ("<uuid:a>", ["", "7", "g" * 32, f"{IDENTITY}0", f"-{IDENTITY.hex[1:]}"]),
        ("<slug:a>", ["", "a b", "a/b", "é", "a.b", "a\n", "a%"]),
    ],
)
def test_typed_placeholder_refuses_other_texts(placeholder: str, texts: list[str]) -> None:
    """A locked view answers 400."""
    for text in texts:
        with pytest.raises(InvalidSemaphore, match=f"{placeholder} is .*, but must be "):
            SemaphoreTemplate(placeholder).fill([text])


@pytest.mark.parametrize("placeholder", ["<int:a>", "<a>"])
def test_message_about_a_long_value_shows_its_beginning_only(placeholder: str) -> None:
    """Like a message about a long semaphore."""
    with pytest.raises(InvalidSemaphore) as caught:
        SemaphoreTemplate(placeholder).fill(["x" * 100_000 + chr(0xD800)])
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("placeholder", "values"),
    [
        ("<int:a>", [None, True, 7.0, Decimal(7), IDENTITY, b"7", User(pk=7)]),
        ("<uuid:a>", [None, 7, IDENTITY.bytes, User(pk=7)]),
        ("<slug:a>", [None, 7, IDENTITY, b"a"]),
        ("<str:a>", [None, True, 7.0, b"a", User(pk=7)]),
    ],
)
def test_typed_placeholder_takes_no_other_types(placeholder: str, values: list[object]) -> None:
    """Another type is a bug of the site, not of the client."""
    hint = re.escape(placeholder.replace(":a", ":a.pk"))
    for value in values:
        with pytest.raises(
            TypeError, match=f"{placeholder} is .*For a model instance write {hint}"
        ):
            SemaphoreTemplate(placeholder).fill([value])


def test_typed_placeholder_follows_attributes() -> None:
    """Several placeholders may have different types."""

    def view(request: Any, name: str) -> None: ...

    name = SemaphoreTemplate("<int:request.user.pk>:<slug:name>").for_calls_of(view)
    request = SimpleNamespace(user=SimpleNamespace(pk="017"))
    assert name(request, "a-b") == "17:a-b"


@pytest.mark.parametrize("converter", ["integer", "INT", "path", "int ", "", "int:str"])
def test_unknown_converter_is_refused_with_those_that_there_are(converter: str) -> None:
    """When the function is decorated."""
    expected = re.escape(f"no converter {converter!r} for <{converter}:customer_id>; ")
    with pytest.raises(ValueError, match=f"{expected}there are: int, slug, str, uuid"):
        distributed_lock(f"<{converter}:customer_id>:x")(collect)


def test_name_of_a_typed_placeholder_is_looked_for_in_the_signature() -> None:
    """Like the name of any other placeholder."""
    with pytest.raises(ValueError, match="no argument 'costumer_id' for <int:costumer_id>; it has"):
        distributed_lock("<int:costumer_id>:x")(collect)


def test_block_has_no_arguments_for_typed_placeholders() -> None:
    """As for other placeholders."""
    with pytest.raises(TypeError, match="a decorated call"), distributed_lock("<int:a>"):
        raise NotImplementedError
