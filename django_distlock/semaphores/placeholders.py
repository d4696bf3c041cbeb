"""Placeholders of templates, and how each encodes a value."""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Final, NamedTuple
from urllib.parse import quote
from uuid import UUID

from django_distlock.arguments import plain

from .validation import MAX_LENGTH, InvalidSemaphore

# What quote(…, safe="") can return: the unreserved characters of RFC 3986 and the percent sign.
ENCODED: Final = re.compile("[A-Za-z0-9_.~%-]*")
INTEGER: Final = re.compile("(?=-?[0-9])(-?)0*([0-9]*)")
SLUG: Final = re.compile("[-a-zA-Z0-9_]+")


class Placeholder(NamedTuple):
    """`<name>` in a template, or `<converter:name>`: an argument of a call, or its attribute."""

    name: str
    converter: str = ""

    def __str__(self) -> str:
        return f"<{self.converter}:{self.name}>" if self.converter else f"<{self.name}>"

    def encode(self, value: object) -> str:
        """Return the value's text, percent-encoded (RFC 3986).

        InvalidSemaphore for a value that the converter refuses, TypeError for a value of a type
        that it doesn't take.
        """
        return CONVERTERS[self.converter](value, self)


def _encode_any(value: object, placeholder: Placeholder) -> str:
    """Return the value's own text: another text is another lock."""
    match value:
        case bool():
            pass
        case str():
            return _quote(plain(value), placeholder)
        case int():
            return _digits(value, placeholder)
        case datetime():
            return quote(datetime.isoformat(_in_utc(value)), safe="")
        case date():
            return date.isoformat(value)
        case UUID():
            return UUID.__str__(value)
    raise TypeError(
        f"{placeholder} is {_kind(value)}: a semaphore is made of str, int, UUID, date or "
        "datetime, because two other objects may share a text. For a model instance write "
        f"{_of_pk(placeholder)}."
    )


def _encode_int(value: object, placeholder: Placeholder) -> str:
    """Return the digits of an int, or of a text of ASCII digits, without leading zeros.

    The other spellings that int() takes (`+7`, ` 7`, `0_7`, digits of other scripts) are refused,
    as by Django's IntConverter: the ORM would find row 7 by each of them.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return _digits(value, placeholder)
    found = INTEGER.fullmatch(text := _text_for(value, placeholder, "an int"))
    if not found:
        raise _refusal(text, placeholder, "ASCII digits")
    sign, digits = found.groups()
    return f"{sign}{digits}" if digits else "0"


def _encode_uuid(value: object, placeholder: Placeholder) -> str:
    """Return the canonical text of a UUID, or of a text that UUID() takes, as the ORM does."""
    if isinstance(value, UUID):
        return UUID.__str__(value)
    text = _text_for(value, placeholder, "a UUID")
    try:
        return str(UUID(text))
    except ValueError as error:
        raise _refusal(text, placeholder, "a UUID") from error


def _encode_slug(value: object, placeholder: Placeholder) -> str:
    """Return a text that Django's SlugConverter takes, unchanged.

    Case is kept: only the column's collation decides whether `alice` and `ALICE` are one row.
    """
    text = _text_for(value, placeholder, "a slug")
    if not SLUG.fullmatch(text):
        raise _refusal(text, placeholder, "ASCII letters, digits, hyphens and underscores")
    return text


NAMED_CONVERTERS: Final[dict[str, Callable[[object, Placeholder], str]]] = {
    "int": _encode_int,
    "slug": _encode_slug,
    "str": _encode_any,
    "uuid": _encode_uuid,
}
"""What can stand before the colon. `str` declares that each text is a lock of its own."""
CONVERTERS: Final = {"": _encode_any, **NAMED_CONVERTERS}


def _digits(number: int, placeholder: Placeholder) -> str:
    try:
        return int.__repr__(number)
    except ValueError as error:  # Python limits the digits, against denial of service
        raise InvalidSemaphore(
            f"{placeholder} is an int of too many digits: a semaphore has at most {MAX_LENGTH} "
            "characters."
        ) from error


def _in_utc(moment: datetime) -> datetime:
    """Return an aware datetime in UTC, so that equal ones have one text."""
    if moment.utcoffset():
        with suppress(OverflowError):  # within hours of datetime.min or datetime.max
            return datetime.astimezone(moment, UTC)
    return moment


def _quote(text: str, placeholder: Placeholder) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise _refusal(text, placeholder, "without lone surrogates") from error


def _text_for(value: object, placeholder: Placeholder, wanted: str) -> str:
    if not isinstance(value, str):
        raise TypeError(
            f"{placeholder} is {_kind(value)}, but must be {wanted}, or its text. For a model "
            f"instance write {_of_pk(placeholder)}."
        )
    return plain(value)


def _of_pk(placeholder: Placeholder) -> Placeholder:
    return placeholder._replace(name=f"{placeholder.name}.pk")


def _kind(value: object) -> str:
    """Return the value's type for a message; the value itself may be a request's cookies."""
    return "None" if value is None else f"of type {type(value).__name__}"


def _refusal(text: str, placeholder: Placeholder, wanted: str) -> InvalidSemaphore:
    """Show the text if it is an argument, such as one of a URL; an attribute may be a secret."""
    is_attribute = "." in placeholder.name
    shown = f"a text of {len(text)} characters" if is_attribute else f"{text[:40]!r}"
    return InvalidSemaphore(f"{placeholder} is {shown}, but must be {wanted}.")
