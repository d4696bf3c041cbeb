"""What a command says it does: in words on stdout, or as JSON, with the words on stderr."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from django.core.management.base import BaseCommand, OutputWrapper

from django_distlock.management.options import OutputFormat
from django_distlock.records import LockInfo

from .rows import Row, json_array, lock_row
from .text import describe_lock


class Report:
    """The locks of one store that a command changed, as it changes them."""

    def __init__(
        self, alias: str, words: OutputWrapper, write_row: Callable[[Row], None] | None
    ) -> None:
        self._alias = alias
        self._words = words
        self._write_row = write_row

    def say(self, text: str) -> None:
        """Write a line for people."""
        self._words.write(text, style_func=str)

    def add(self, locks: Iterable[LockInfo], *events: str) -> int:
        """Report each lock as it comes, and return how many there were. See describe_lock()."""
        count = 0
        for count, lock in enumerate(locks, 1):  # noqa: B007 - the last one is the number
            if self._write_row is None:
                self.say(describe_lock(lock, *events))
            else:
                self._write_row(lock_row(self._alias, lock))
        return count

    def add_row(self, row: Row) -> None:
        """Report a lock that people have been told of."""
        if self._write_row is not None:
            self._write_row(row)


@contextmanager
def report(command: BaseCommand, alias: str, output: str) -> Iterator[Report]:
    """Yield the report of a command about this store; a JSON array ends with the block."""
    if output == OutputFormat.JSON:
        with json_array(command.stdout) as write:
            yield Report(alias, command.stderr, write)
    else:
        yield Report(alias, command.stdout, None)
