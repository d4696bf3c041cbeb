"""Which values a placeholder takes, and the text of each."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import models

from django_distlock.semaphores.templates import SemaphoreTemplate
from django_distlock.semaphores.validation import InvalidSemaphore
from tests.support.templates import Level, Shouting, render


class Currency(models.TextChoices):
    EURO = "€"


class Priority(models.IntegerChoices):
    HIGH = 1


class Colour(StrEnum):
    RED = "dark red"


class Plain(Enum):
    ONE = 1


# Values


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("abc", "abc"),
        ("", ""),
        (0, "0"),
        (-12, "-12"),
        (10**30, "1" + "0" * 30),
        (UUID("12345678-1234-5678-1234-567812345678"), "12345678-1234-5678-1234-567812345678"),
        (date(2026, 2, 3), "2026-02-03"),
        (datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=UTC), "2026-02-03T04%3A05%3A06.000007%2B00%3A00"),
        (Currency.EURO, "%E2%82%AC"),
        (Colour.RED, "dark%20red"),
        (Priority.HIGH, "1"),
        (Level.TOP, "7"),
    ],
)
def test_value_has_its_text(value: object, text: str) -> None:
    """Strings, numbers, ids, dates and enumerations of these have fixed texts."""
    assert render("<a>|", a=value) == f"{text}|"


def test_str_counts_by_its_value() -> None:
    """Whatever a subclass's str() returns."""
    value = Shouting("quiet")
    assert str(value) == "SHOUTED"
    assert render("<a>", a=value) == "quiet"


def test_date_and_midnight_differ() -> None:
    """A day and the moment at which it begins are different values."""
    day, midnight = date(2026, 2, 3), datetime(2026, 2, 3, tzinfo=UTC)
    assert render("<a>", a=day) != render("<a>", a=midnight)


def test_moment_is_one_lock_in_every_time_zone() -> None:
    """Aware datetimes that are equal have one text; a naive one says nothing of its zone."""
    moment = datetime(2026, 2, 3, 4, 5, tzinfo=UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert elsewhere == moment
    assert render("<a>", a=elsewhere) == render("<a>", a=moment)
    assert render("<a>", a=moment.replace(tzinfo=None)) == "2026-02-03T04%3A05%3A00"
    assert render("<a>", a=datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("AZaz09-._~", "AZaz09-._~"),
        ("a b", "a%20b"),
        ("a/b:c|d", "a%2Fb%3Ac%7Cd"),
        ("100%", "100%25"),
        ("%41", "%2541"),
        ("a+b", "a%2Bb"),
        ("<a>", "%3Ca%3E"),
        ("ä", "%C3%A4"),
        ("a\u0308", "a%CC%88"),
        ("\x00\n", "%00%0A"),
        ("\U0001f512", "%F0%9F%94%92"),
    ],
)
def test_value_is_percent_encoded_but_for_unreserved_characters(value: str, text: str) -> None:
    """RFC 3986's unreserved characters stay, every other byte of UTF-8 is %XX."""
    assert render("<a>", a=value) == text


def test_lone_surrogate_in_a_value_is_an_invalid_semaphore() -> None:
    """It has no UTF-8, so a locked view answers 400 and not 500."""
    with pytest.raises(InvalidSemaphore, match="but must be without lone surrogates"):
        render("<a>", a="a\ud800")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        1.0,
        Decimal(1),
        b"a",
        time(1),
        ("a",),
        {"a": 1},
        Plain.ONE,
        object(),
        User(pk=1, username="anna"),
    ],
)
def test_value_of_another_type_is_a_type_error_that_suggests_the_pk(value: object) -> None:
    """Two objects may share a text, so str() is not used."""
    with pytest.raises(TypeError, match=r"For a model instance write <customer\.pk>"):
        render("<customer>", customer=value)


def test_primary_key_of_a_model_instance_is_a_value() -> None:
    """The message's suggestion works."""
    assert render("<customer.pk>:x", customer=User(pk=12)) == "12:x"


def test_unsaved_model_instance_has_no_value() -> None:
    """All unsaved instances would share one lock."""
    with pytest.raises(TypeError, match=r"<customer\.pk> is None"):
        render("<customer.pk>:x", customer=User())


SECRET = "sessionid=4f1c"


class Shown:
    """An object whose repr must not be in a log."""

    def __repr__(self) -> str:
        raise NotImplementedError


@pytest.mark.parametrize("placeholder", ["<{}>", "<int:{}>", "<uuid:{}>", "<slug:{}>", "<str:{}>"])
@pytest.mark.parametrize("name", ["meta", "request.META"])
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"HTTP_COOKIE": SECRET}, "is of type dict"),
        ([SECRET], "is of type list"),
        (SECRET.encode(), "is of type bytes"),
        (Shown(), "is of type Shown"),
    ],
)
def test_message_names_the_type_of_a_value_of_another_type(
    placeholder: str, name: str, value: object, kind: str
) -> None:
    """The message goes into logs, where cookies must not be."""
    template = SemaphoreTemplate(placeholder.format(name))
    with pytest.raises(TypeError, match=kind) as caught:
        template.fill([value])
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("placeholder", "value"),
    [
        ("<int:{}>", SECRET),
        ("<uuid:{}>", SECRET),
        ("<slug:{}>", SECRET),
        ("<{}>", SECRET + chr(0xD800)),
        ("<str:{}>", SECRET + chr(0xD800)),
    ],
)
def test_message_shows_a_text_only_if_it_is_an_argument(placeholder: str, value: str) -> None:
    """Such as a URL's. An attribute may be a session's secret: only its length is shown."""
    with pytest.raises(InvalidSemaphore, match=SECRET):
        SemaphoreTemplate(placeholder.format("customer")).fill([value])
    template = SemaphoreTemplate(placeholder.format("request.session.key"))
    with pytest.raises(InvalidSemaphore, match=f"is a text of {len(value)} characters") as caught:
        template.fill([value])
    assert SECRET not in str(caught.value)
