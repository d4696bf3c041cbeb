"""Validation of semaphores and of their prefixes."""

import re
from typing import Final

from django_distlock.arguments import plain, type_of

MAX_LENGTH: Final = 255
CONTROL_OR_SURROGATE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class InvalidSemaphore(ValueError):
    """A text that can't be a semaphore. A locked view answers 400."""


def validate_semaphore(semaphore: object) -> str:
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
    """Return the prefix as a plain str. Raise if no semaphore can begin with it."""
    try:
        return validate_semaphore(prefix) if plain(prefix) != "" else ""
    except (TypeError, InvalidSemaphore) as error:
        raise type(error)(f"prefix: {error}") from error


def first_after(prefix: str) -> str:
    """Return the first text after all that begin with the prefix, in the order of code points.

    It is empty if there is none.
    """
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return ""
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # skip the surrogates
