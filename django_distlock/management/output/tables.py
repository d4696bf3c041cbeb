"""Tables of locks, for terminals and for pipes."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Final

from django_distlock.arguments import format_duration, printable
from django_distlock.records import LockInfo

from .text import ago, cells, holder_of, state_of, time_left

HEADINGS: Final = (
    *("SEMAPHORE", "STATE", "HELD", "RENEWED", "LEFT", "WAITING"),
    *("TOKEN", "HOLDER"),  # these move to a second line in a narrow terminal
)
DETAILS: Final = 6
"""The first column that moves to the second line."""
MEASURED: Final = 1_000
"""How many rows the widths of the columns are made for: later rows may be wider."""
WIDEST: Final = 40
"""Cells of a column at most. A longer text shifts the rest of its own row only."""
INDENT: Final = "    "
GAP: Final = "  "

Cells = Sequence[str]


def lock_table(locks: Iterable[LockInfo], width: int | None) -> Iterator[str]:
    """Yield the lines of a table, with its headings, as the locks come.

    In a terminal of this `width` a row takes two lines if one is too short. Elsewhere it is None:
    each lock has a line of its own, whatever its length.
    """
    rows = map(lock_cells, locks)
    first = list(islice(rows, MEASURED))
    widths = _widths([HEADINGS, *first])
    folded = width is not None and sum(widths) + len(GAP) * (len(widths) - 1) > width
    if width is not None and folded:
        others = sum(len(GAP) + each for each in widths[1:DETAILS])
        widths[0] = max(len(HEADINGS[0]), width - others)
    for row in chain([HEADINGS], first, rows):
        yield from _folded(row, widths) if folded else [_line(row, widths)]


def lock_cells(lock: LockInfo) -> Cells:
    """Return the row of a lock, without its store."""
    held = "-" if lock.acquired_at is None else format_duration(lock.seen_at - lock.acquired_at)
    return (
        printable(lock.semaphore),
        state_of(lock),
        held,
        ago(lock, lock.renewed_at),
        time_left(lock),
        "-" if lock.waiting is None else str(lock.waiting),
        "-" if lock.token is None else str(lock.token),
        holder_of(lock),
    )


def _widths(rows: Iterable[Cells]) -> list[int]:
    return [min(WIDEST, max(map(cells, column))) for column in zip(*rows, strict=True)]


def _folded(row: Cells, widths: Sequence[int]) -> Iterator[str]:
    """Yield the lines of a row in a narrow terminal; nothing is cut."""
    if cells(row[0]) > widths[0]:
        yield row[0]
        row = ["", *row[1:]]
    yield _line(row[:DETAILS], widths)
    yield INDENT + _line(row[DETAILS:], widths[DETAILS:])


def _line(row: Cells, widths: Sequence[int]) -> str:
    padded = (text + " " * (width - cells(text)) for text, width in zip(row, widths, strict=False))
    return GAP.join(padded).rstrip()
