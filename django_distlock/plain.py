"""Plain values: what a subclass of str, int or float says of itself never reaches a store."""

from types import NoneType
from typing import Final, TypeVar

T = TypeVar("T")

PLAIN: Final = frozenset({str, int, float, bool, NoneType})


def plain(value: T) -> T:
    """Return a text or number as an exact str, int or float; anything else as it is.

    A member of `class Job(str, Enum)` equals its value, but an f-string, str() and repr() show
    something else. So these are the base types' own methods, which no subclass overrides.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, str):
        return str.__str__(value)  # type: ignore[return-value]
    if isinstance(value, int):
        return int.__int__(value)  # type: ignore[return-value]
    if isinstance(value, float):
        return float.__float__(value)  # type: ignore[return-value]
    return value
