"""Templates: semaphores made of a call's arguments or of an instance's attributes."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from operator import attrgetter
from typing import Any, Final
from urllib.parse import unquote

from django_distlock.arguments import plain, type_of

from .placeholders import ENCODED, NAMED_CONVERTERS, Placeholder
from .signatures import argument_binder, call_signature
from .validation import InvalidSemaphore, validate_semaphore

PLACEHOLDER: Final = re.compile("<([^<>]*)>")
OTHER_STYLE: Final = re.compile(r"\{([\w.]*)(?:[!:\[][^{}]*)?\}|%\((\w+)\)|\$(\w+)")
"""A placeholder of str.format(), of the % operator, or of string.Template."""

LIKE_F_STRING: Final = re.compile(r"\{[^\W\d][\w.]*(?:[\[(!:][^{}]*)?\}")
MANY: Final = 100
like_f_strings: Final[dict[tuple[str, str], str]] = {}
"""What stands in braces in templates of decorated callables, by the callable and the template.

It is no argument's name, so it may be meant literally; a system check tells of it. There are MANY
at most, as templates may be made at run time.
"""


class SemaphoreTemplate:
    """A text such as `<int:customer_id>collectPayment`, filled with the arguments of a call.

    Different values make different semaphores: each value is percent-encoded, and between two
    placeholders stands a character that the encoding never returns. A typed placeholder gives all
    spellings of one value the same semaphore, or refuses them.
    """

    def __init__(self, text: str) -> None:
        """Parse the text; a malformed or ambiguous one is a ValueError."""
        if not isinstance(text, str):
            raise TypeError(f"A template of semaphores is a str, not {type_of(text)}.")
        text = plain(text)
        literals, placeholders = _parse(text)
        # Refuse now what no value can make valid.
        fixed = "".join(literals)
        if fixed or not placeholders:
            validate_semaphore(fixed)
        for literal in literals[1:-1]:
            if ENCODED.fullmatch(literal):
                raise ValueError(
                    f"Template {text!r}: between two placeholders must stand a character such as "
                    "':', '/' or '|', or else two different calls could get one lock."
                )
        self.text = text
        self.placeholders = placeholders
        self.names = [placeholder.name for placeholder in placeholders]
        # No value contains what stands between two placeholders: at most one match is possible.
        self._pattern = re.compile(f"({ENCODED.pattern})".join(map(re.escape, literals)))
        self._format = "%s".join(literal.replace("%", "%%") for literal in literals)
        self._literals = literals
        self._getters = [
            (placeholder, root, attrgetter(path) if path else None)
            for placeholder in placeholders
            for root, _, path in [placeholder.name.partition(".")]
        ]

    def for_calls_of(self, function: Callable[..., Any]) -> Callable[..., str]:
        """Return a function that makes the semaphore of a call's arguments.

        ValueError if the function has no argument of a placeholder's name.
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
        found = LIKE_F_STRING.search("<>".join(self._literals))
        if found and len(like_f_strings) < MANY:
            name = f"{function.__module__}.{getattr(function, '__qualname__', function)}"
            like_f_strings[name, self.text] = found[0]
        # Another decorator below may take arguments that it doesn't show and doesn't pass on.
        wraps = hasattr(function, "__wrapped__") and not takes_any

        bind = argument_binder(signature)

        def make_semaphore(*args: Any, **kwargs: Any) -> str:
            if wraps:
                kwargs = {name: value for name, value in kwargs.items() if name in parameters}
            return self.render(bind(args, kwargs))

        return make_semaphore

    def other_style(self, names: Collection[str] | None) -> str | None:
        """Return what is wrong if one of the names stands in braces, or in another library's style.

        Such a placeholder is not filled in, so all calls would share one lock. With None, any name
        counts.
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
        """Return the semaphore for these arguments; a missing one is a ValueError."""
        values = []
        for placeholder, root, getter in self._getters:
            if root not in arguments:
                raise ValueError(f"Template {self.text!r}: this call has no argument {root!r}.")
            value = arguments[root]
            values.append(self._get(placeholder, getter, value) if getter else value)
        return self.fill(values)

    def render_for(self, instance: object) -> str:
        """Return the semaphore for the instance's own attributes."""
        return self.fill(
            self._get(placeholder, attrgetter(placeholder.name), instance)
            for placeholder in self.placeholders
        )

    def fill(self, values: Iterable[object]) -> str:
        """Return the semaphore with these values in place of the placeholders."""
        return self._format % tuple(map(Placeholder.encode, self.placeholders, values))

    def read(self, semaphore: str) -> list[str] | None:
        """Return the values' texts in a semaphore; None if the template can't make it."""
        semaphore = plain(semaphore)
        found = self._pattern.fullmatch(semaphore)
        if found is None:
            return None
        texts = [unquote(text) for text in found.groups()]
        try:
            return texts if self.fill(texts) == semaphore else None
        except InvalidSemaphore:
            return None

    def _get(
        self, placeholder: Placeholder, getter: Callable[[object], object], value: object
    ) -> object:
        try:
            return getter(value)
        except AttributeError as error:
            raise AttributeError(
                f"Template {self.text!r}: {placeholder} can't be read: {error}"
            ) from error


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
