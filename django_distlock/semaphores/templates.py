"""Semaphores: what names are allowed, and how a template makes one of a call's arguments."""

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from operator import attrgetter
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote
from uuid import UUID

from django_distlock.arguments import plain, type_of

from .signatures import call_signature

MAX_LENGTH: Final = 255
CONTROL_OR_SURROGATE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
PLACEHOLDER: Final = re.compile("<([^<>]*)>")
OTHER_STYLE: Final = re.compile(r"\{([\w.]*)(?:[!:\[][^{}]*)?\}|%\((\w+)\)|\$(\w+)")
"""A placeholder of str.format(), of the % operator, or of string.Template."""
INTEGER: Final = re.compile("(?=-?[0-9])(-?)0*([0-9]*)")
SLUG: Final = re.compile("[-a-zA-Z0-9_]+")
# What quote(…, safe="") can yield: the unreserved characters of RFC 3986, and the percent sign.
ENCODED: Final = re.compile("[A-Za-z0-9_.~%-]*")


class InvalidSemaphore(ValueError):
    """The text can't be a semaphore; a locked view answers 400."""


def validate_semaphore(semaphore: str) -> str:
    """Return the semaphore as a plain str, or raise InvalidSemaphore; its text is never changed."""
    if type(semaphore) is not str:
        if not isinstance(semaphore, str):
            raise TypeError(f"A semaphore is a str, not {type_of(semaphore)}.")
        semaphore = plain(semaphore)
    if not semaphore:
        raise InvalidSemaphore("A semaphore can't be empty.")
    if len(semaphore) > MAX_LENGTH:
        raise InvalidSemaphore(
            f"A semaphore has at most {MAX_LENGTH} characters, this one has {len(semaphore)}: "
            f"{semaphore[:40]!r}… Shorten it, for instance with hashlib.sha256(…).hexdigest()."
        )
    if found := CONTROL_OR_SURROGATE.search(semaphore):
        raise InvalidSemaphore(
            f"A semaphore has no control characters or lone surrogates, {semaphore!r} has "
            f"{found[0]!r}."
        )
    return semaphore


def validate_prefix(prefix: str) -> str:
    """Return the beginning of semaphores as a plain str, or raise for what none begins with."""
    try:
        return validate_semaphore(prefix) if plain(prefix) != "" else ""
    except (TypeError, InvalidSemaphore) as error:
        raise type(error)(f"prefix: {error}") from error


def first_after(prefix: str) -> str:
    """Return the first text, in the order of code points, behind all that begin with the prefix.

    It is empty if there is none.
    """
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return ""
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # behind the surrogates


class Placeholder(NamedTuple):
    """`<name>` in a template, or `<converter:name>`: an argument of a call, or its attribute."""

    name: str
    converter: str = ""

    def __str__(self) -> str:
        return f"<{self.converter}:{self.name}>" if self.converter else f"<{self.name}>"

    def encode(self, value: object) -> str:
        """Return the value's text, percent-encoded (RFC 3986).

        InvalidSemaphore if it is not what the converter is for, TypeError for a value of a type
        that it doesn't take.
        """
        return CONVERTERS[self.converter](value, self)


class SemaphoreTemplate:
    """A text such as `<int:customer_id>collectPayment`, filled with the arguments of a call.

    Different values give different semaphores: each value is percent-encoded, and between two
    placeholders stands a character that the encoding never yields. The other way round, a typed
    placeholder gives all spellings of one thing the same semaphore, or refuses them.
    """

    def __init__(self, text: str) -> None:
        """Parse the text; a malformed or ambiguous one is a ValueError."""
        if not isinstance(text, str):
            raise TypeError(f"A template of semaphores is a str, not {type_of(text)}.")
        text = plain(text)
        literals, placeholders = _parse(text)
        for literal in literals[1:-1]:
            if ENCODED.fullmatch(literal):
                raise ValueError(
                    f"Template {text!r}: between two placeholders must stand a character such as "
                    "':', '/' or '|', or else two different calls could get one lock."
                )
        self.text = text
        self.placeholders = placeholders
        self.names = names = [placeholder.name for placeholder in placeholders]
        # No value has what stands between two placeholders, so there is one way to match at most.
        self._pattern = re.compile(f"({ENCODED.pattern})".join(map(re.escape, literals)))
        self._format = "%s".join(literal.replace("%", "%%") for literal in literals)
        self._literals = literals
        self._getters = [
            (placeholder, root, attrgetter(path) if path else None)
            for placeholder in placeholders
            for root, _, path in [placeholder.name.partition(".")]
        ]
        # What no value can make valid.
        fixed = "".join(literals)
        if fixed or not names:
            validate_semaphore(fixed)

    def for_calls_of(self, function: Callable[..., Any]) -> Callable[..., str]:
        """Return what makes the semaphore of a call's arguments.

        ValueError when such a call can't have one of the names.
        """
        signature = call_signature(function)
        parameters = signature.parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        named = [p.name for p in parameters.values() if p.kind is not p.VAR_POSITIONAL]
        for placeholder, root, _ in self._getters:
            if root not in named and not takes_any:
                raise ValueError(
                    f"Template {self.text!r}: the callable has no argument {root!r} for "
                    f"{placeholder}; it has: {', '.join(named) or 'none'}."
                )
        problem = self.other_style(None if takes_any else named)
        if parameters and problem:
            raise ValueError(problem)
        # Another decorator below may take arguments that it doesn't show, and keep them to itself.
        wraps = hasattr(function, "__wrapped__") and not takes_any

        def name_call(*args: Any, **kwargs: Any) -> str:
            if wraps:
                kwargs = {name: value for name, value in kwargs.items() if name in parameters}
            return self.render(bind_arguments(signature, args, kwargs))

        return name_call

    def other_style(self, names: Collection[str] | None) -> str | None:
        """Tell what is wrong if braces, or the like, stand around one of the names, or around any.

        What is not filled makes one lock for all.
        """
        for found in OTHER_STYLE.finditer("<>".join(self._literals)):
            name = next(filter(None, found.groups()), "")
            root = name.partition(".")[0]
            is_numbered = root.isdecimal() or not root
            if names is None or root in names or (is_numbered and found[0][0] == "{"):
                meant = "name" if is_numbered else name
                return (
                    f"Template {self.text!r}: {found[0]} is not filled in, so all calls would "
                    f"share one lock; write <{meant}>. If the text is meant literally, give a "
                    "callable that returns the semaphore."
                )
        return None

    def render(self, arguments: Mapping[str, Any]) -> str:
        """Return the semaphore for these arguments; one that is missing is a ValueError."""
        values = []
        for placeholder, root, getter in self._getters:
            if root not in arguments:
                raise ValueError(f"Template {self.text!r}: this call has no argument {root!r}.")
            value = arguments[root]
            values.append(self._get(placeholder, getter, value) if getter else value)
        return self.fill(values)

    def render_for(self, instance: object) -> str:
        """Return the semaphore that the instance's own attributes make."""
        return self.fill(
            self._get(placeholder, attrgetter(placeholder.name), instance)
            for placeholder in self.placeholders
        )

    def _get(
        self, placeholder: Placeholder, getter: Callable[[object], object], value: object
    ) -> object:
        try:
            return getter(value)
        except AttributeError as error:
            raise AttributeError(
                f"Template {self.text!r}: {placeholder} can't be read: {error}"
            ) from error

    def fill(self, values: Iterable[object]) -> str:
        """Return the semaphore with these values in the placeholders' places."""
        return self._format % tuple(map(Placeholder.encode, self.placeholders, values))

    def read(self, semaphore: str) -> list[str] | None:
        """Return the texts in the placeholders' places; None if the template can't make this."""
        semaphore = plain(semaphore)
        found = self._pattern.fullmatch(semaphore)
        if found is None:
            return None
        texts = [unquote(text) for text in found.groups()]
        try:
            return texts if self.fill(texts) == semaphore else None
        except InvalidSemaphore:
            return None


def _parse(text: str) -> tuple[list[str], list[Placeholder]]:
    """Split a template into its literals and, between them, its placeholders."""
    parts = PLACEHOLDER.split(text)
    literals = parts[::2]
    placeholders = [_parse_placeholder(text, part) for part in parts[1::2]]
    if any("<" in literal or ">" in literal for literal in literals):
        raise ValueError(
            f"Template {text!r}: '<' and '>' only stand around the name of an argument; "
            "where a semaphore needs them, give a callable instead."
        )
    return literals, placeholders


def _parse_placeholder(text: str, part: str) -> Placeholder:
    converter, colon, name = part.rpartition(":")
    if not all(piece.isidentifier() for piece in name.split(".")):
        raise ValueError(
            f"Template {text!r}: <{part}> is not the name of an argument or of its attribute."
        )
    if colon and converter not in NAMED_CONVERTERS:
        raise ValueError(
            f"Template {text!r}: there is no converter {converter!r} for <{part}>; there are: "
            f"{', '.join(NAMED_CONVERTERS)}."
        )
    return Placeholder(name, converter)


def _encode_any(value: object, placeholder: Placeholder) -> str:
    """Return the value's own text: another text is another thing."""
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


def _digits(number: int, placeholder: Placeholder) -> str:
    try:
        return int.__repr__(number)
    except ValueError as error:  # Python has a limit, against attacks by long numbers
        raise InvalidSemaphore(
            f"{placeholder} is an int of too many digits: a semaphore has at most {MAX_LENGTH} "
            "characters."
        ) from error


def _in_utc(moment: datetime) -> datetime:
    """Return an aware datetime in UTC, so that equal ones have one text."""
    if moment.utcoffset():
        with suppress(OverflowError):  # within hours of the first or the last of all
            return datetime.astimezone(moment, UTC)
    return moment


def _encode_int(value: object, placeholder: Placeholder) -> str:
    """Return the digits of an int, or of a text of ASCII digits, without leading zeros.

    What else int() takes (`+7`, ` 7`, `0_7`, other scripts' digits) is refused, as Django's
    IntConverter does: by each of these the ORM would find the row of 7.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return _digits(value, placeholder)
    found = INTEGER.fullmatch(text := _text_for(value, placeholder, "an int"))
    if not found:
        raise _refusal(text, placeholder, "ASCII digits")
    sign, digits = found.groups()
    return f"{sign}{digits}" if digits else "0"


def _encode_uuid(value: object, placeholder: Placeholder) -> str:
    """Return the usual text of a UUID, or of a text that UUID() takes, as the ORM does."""
    if isinstance(value, UUID):
        return UUID.__str__(value)
    text = _text_for(value, placeholder, "a UUID")
    try:
        return str(UUID(text))
    except ValueError as error:
        raise _refusal(text, placeholder, "a UUID") from error


def _encode_slug(value: object, placeholder: Placeholder) -> str:
    """Return a text that Django's SlugConverter takes, as it is.

    Case is kept: whether `alice` and `ALICE` are one row, only the column's collation can tell.
    """
    text = _text_for(value, placeholder, "a slug")
    if not SLUG.fullmatch(text):
        raise _refusal(text, placeholder, "ASCII letters, digits, hyphens and underscores")
    return text


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


NAMED_CONVERTERS: Final = {
    "int": _encode_int,
    "slug": _encode_slug,
    "str": _encode_any,
    "uuid": _encode_uuid,
}
"""What a placeholder may say that it is; `str` says expressly that each text is another thing."""
CONVERTERS: Final = {"": _encode_any, **NAMED_CONVERTERS}


def _quote(text: str, placeholder: Placeholder) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise _refusal(text, placeholder, "without lone surrogates") from error


def bind_arguments(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the call's arguments that have a name, with defaults and the members of **kwargs."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            del arguments[parameter.name]
        elif parameter.kind is parameter.VAR_KEYWORD:
            # Beside a positional-only argument of the same name, a member of **kwargs yields.
            arguments = arguments.pop(parameter.name) | arguments
    return arguments
