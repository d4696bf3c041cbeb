"""Questions to the person at the terminal."""

import sys

from django.core.management.base import OutputWrapper

from .exit_codes import usage_error


def require_terminal() -> None:
    """Refuse to go on where nobody can answer: a cron job would wait for ever."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise usage_error("There is no terminal to ask on: give --no-input to go on without.")


def confirm(stream: OutputWrapper, question: str) -> bool:
    """Ask, and return whether the answer is yes."""
    stream.write(f"{question} [y/N] ", style_func=str, ending="")
    stream.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
