"""Semaphores: what names are allowed, and how a template makes one of a call's arguments."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from operator import attrgetter
from typing import Any, Final
from urllib.parse import quote, unquote
from uuid import UUID

from .plain import plain
from .signatures import call_signature

MAX_LENGTH: Final = 255
CONTROL_OR_SURROGATE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
PLACEHOLDER: Final = re.compile("<([^<>]*)>")
# What quote(…, safe="") can yield: the unreserved characters of RFC 3986, and the percent sign.
ENCODED: Final = re.compile("[A-Za-z0-9_.~%-]*")


class InvalidSemaphore(ValueError):
    """The text can't be a semaphore; a locked view answers 400."""


def validate_semaphore(semaphore: str) -> str:
    """Return the semaphore as a plain str, or raise InvalidSemaphore; its text is never changed."""
    if type(semaphore) is not str:
        if not isinstance(semaphore, str):
            raise TypeError(f"A semaphore is a str, not {type(semaphore).__name__}.")
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


def first_after(prefix: str) -> str:
    """Return the first text, in the order of code points, behind all that begin with the prefix.

    It is empty if there is none.
    """
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return ""
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # behind the surrogates


class SemaphoreTemplate:
    """A text such as `<customer_id>collectPayment`, filled with the arguments of a call.

    Different values give different semaphores: each value is percent-encoded, and between two
    placeholders stands a character that the encoding never yields.
    """

    def __init__(self, text: str) -> None:
        """Parse the text; a malformed or ambiguous one is a ValueError."""
        text = plain(text)
        literals, names = _parse(text)
        for literal in literals[1:-1]:
            if ENCODED.fullmatch(literal):
                raise ValueError(
                    f"Template {text!r}: between two placeholders must stand a character such as "
                    "':', '/' or '|', or else two different calls could get one lock."
                )
        self.text = text
        self.names = names
        # No value has what stands between two placeholders, so there is one way to match at most.
        self._pattern = re.compile(f"({ENCODED.pattern})".join(map(re.escape, literals)))
        self._format = "%s".join(literal.replace("%", "%%") for literal in literals)
        self._getters = [
            (name, root, attrgetter(path) if path else None)
            for name in names
            for root, _, path in [name.partition(".")]
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
        for name, root, _ in self._getters:
            if root not in named and not takes_any:
                raise ValueError(
                    f"Template {self.text!r}: the callable has no argument {root!r} for <{name}>; "
                    f"it has: {', '.join(named) or 'none'}."
                )
        # Another decorator below may take arguments that it doesn't show, and keep them to itself.
        wraps = hasattr(function, "__wrapped__") and not takes_any

        def name_call(*args: Any, **kwargs: Any) -> str:
            if wraps:
                kwargs = {name: value for name, value in kwargs.items() if name in parameters}
            return self.render(bind_arguments(signature, args, kwargs))

        return name_call

    def render(self, arguments: Mapping[str, Any]) -> str:
        """Return the semaphore for these arguments; one that is missing is a ValueError."""
        values = []
        for _, root, getter in self._getters:
            if root not in arguments:
                raise ValueError(f"Template {self.text!r}: this call has no argument {root!r}.")
            value = arguments[root]
            values.append(getter(value) if getter else value)
        return self.fill(values)

    def render_for(self, instance: object) -> str:
        """Return the semaphore that the instance's own attributes make."""
        return self.fill(attrgetter(name)(instance) for name in self.names)

    def fill(self, values: Iterable[object]) -> str:
        """Return the semaphore with these values in the placeholders' places."""
        return self._format % tuple(map(encode, values, self.names))

    def read(self, semaphore: str) -> list[str] | None:
        """Return the texts in the placeholders' places; None if the template can't make this."""
        found = self._pattern.fullmatch(plain(semaphore))
        return [unquote(text) for text in found.groups()] if found else None


def _parse(text: str) -> tuple[list[str], list[str]]:
    """Split a template into its literals and, between them, the names of its placeholders."""
    parts = PLACEHOLDER.split(text)
    literals, names = parts[::2], parts[1::2]
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(
                f"Template {text!r}: <{name}> is not the name of an argument or of its attribute."
            )
    if any("<" in literal or ">" in literal for literal in literals):
        raise ValueError(
            f"Template {text!r}: '<' and '>' only stand around the name of an argument; "
            "where a semaphore needs them, give a callable instead."
        )
    return literals, names


def encode(value: object, name: str) -> str:
    """Return the value's text, percent-encoded (RFC 3986); other types than these are refused."""
    match value:
        case bool():
            pass
        case str():
            return _quote(plain(value))
        case int():
            return int.__repr__(value)
        case datetime():
            return _quote(datetime.isoformat(value))
        case date():
            return _quote(date.isoformat(value))
        case UUID():
            return UUID.__str__(value)
    raise TypeError(
        f"<{name}> is {value!r}: a semaphore is made of str, int, UUID, date or datetime, because "
        f"two other objects may share a text. For a model instance write <{name}.pk>."
    )


def _quote(text: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise InvalidSemaphore(f"{text!r} has a lone surrogate.") from error


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
