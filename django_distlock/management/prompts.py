"""Questions to the person at the terminal."""

import sys

from django.core.management.base import BaseCommand

from .exit_codes import usage_error


def require_terminal() -> None:
    """Refuse to go on where nobody can answer: a cron job would wait for ever."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise usage_error("There is no terminal to ask on: give --no-input to go on without.")


def confirm(command: BaseCommand, question: str) -> bool:
    """Ask on stderr, and return whether the answer is yes."""
    command.stdout.flush()  # what the question is about may be in a pipe's buffer
    command.stderr.write(f"{question} [y/N] ", style_func=str, ending="")
    command.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:  # Ctrl-D
        command.stderr.write("")
    return answer.strip().lower() in ("y", "yes")
