"""Options and arguments that several commands have."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from typing import TypeVar

from django_distlock.arguments import LONGEST, parse_duration
from django_distlock.semaphores.validation import validate_semaphore

T = TypeVar("T")


class OutputFormat(StrEnum):
    """The form of what a command prints on stdout."""

    TABLE = "table"
    """A text for people."""
    JSON = "json"


def add_backend_option(parser: ArgumentParser, default: str | None = "default") -> None:
    """Add `--backend`; without a default, its absence means all stores."""
    shown = "all" if default is None else default
    parser.add_argument(
        "--backend",
        metavar="ALIAS",
        default=default,
        help=f"the store's alias in DISTLOCK (default: {shown})",
    )


def add_format_option(parser: ArgumentParser) -> None:
    """Add `--format`."""
    parser.add_argument(
        "--format",
        dest="output",  # `format` is a built-in function
        choices=[each.value for each in OutputFormat],
        default=OutputFormat.TABLE.value,
        help="what to print on stdout: a text for people, or JSON (default: table)",
    )


def add_no_input_option(parser: ArgumentParser) -> None:
    """Add `--no-input`, by the names that it has in Django's own commands."""
    parser.add_argument(
        "--no-input",
        "--noinput",
        dest="interactive",
        action="store_false",
        help="don't ask: needed where there is no terminal",
    )


def duration(text: str) -> timedelta:
    """Return an argument such as `10m`."""
    found = _read(parse_duration, text)
    if found.total_seconds() > LONGEST:
        raise ArgumentTypeError(f"{text!r} is longer than {LONGEST / 86400:g}d.")
    return found


def positive_duration(text: str) -> timedelta:
    """Return an argument such as `10m`, which may not be 0."""
    found = duration(text)
    if not found:
        raise ArgumentTypeError("must be longer than 0.")
    return found


def positive_number(text: str) -> int:
    """Return an argument that is a whole number above 0."""
    found = int(text) if text.isascii() and text.isdecimal() else 0
    if not found:
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0.")
    return found


def semaphore(text: str) -> str:
    """Return an argument that names a lock."""
    return _read(validate_semaphore, text)


def prefix(text: str) -> str:
    """Return an argument with which semaphores begin; an empty one for all."""
    return semaphore(text) if text else ""


def _read(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error
