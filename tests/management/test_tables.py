"""Tables of locks in terminals and pipes, and texts that are safe to show there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from os import terminal_size

import pytest

from django_distlock.arguments import printable
from django_distlock.management.output.screens import screen
from django_distlock.management.output.tables import lock_table
from django_distlock.management.output.text import cells
from django_distlock.records import LockInfo, LockState

pytestmark = pytest.mark.once

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def lock(semaphore: str = "job", holder: str = "web1 pid 7 MainThread") -> LockInfo:
    return LockInfo(
        semaphore=semaphore,
        state=LockState.HELD,
        token=1_785_463_217_123_456,
        holder=holder,
        acquired_at=NOW - timedelta(minutes=2, seconds=4),
        expires_at=NOW + timedelta(seconds=56),
        seen_at=NOW,
        renewed_at=NOW - timedelta(seconds=4),
        waiting=3,
    )


def test_table_of_a_pipe_has_a_line_for_each_lock() -> None:
    """Columns are as wide as their texts."""
    assert list(lock_table([lock(), lock("日本語", "🔒 (h pid 1 t)")], None)) == [
        "SEMAPHORE  STATE  HELD   RENEWED  LEFT  WAITING  TOKEN             HOLDER",
        "job        held   2m 4s  4s ago   56s   3        1785463217123456  web1 pid 7 MainThread",
        "日本語     held   2m 4s  4s ago   56s   3        1785463217123456  🔒 (h pid 1 t)",
    ]


def test_row_takes_two_lines_in_a_terminal_that_is_too_narrow() -> None:
    """Nothing is cut: a semaphore that is too long has a line of its own."""
    long = "x" * 60
    lines = list(lock_table([lock(), lock(long)], 80))
    assert lines == [
        "SEMAPHORE                                   STATE  HELD   RENEWED  LEFT  WAITING",
        "    TOKEN             HOLDER",
        "job                                         held   2m 4s  4s ago   56s   3",
        "    1785463217123456  web1 pid 7 MainThread",
        long,
        "                                            held   2m 4s  4s ago   56s   3",
        "    1785463217123456  web1 pid 7 MainThread",
    ]
    assert max(map(len, lines)) == 80
    assert len(list(lock_table([lock()], 200))) == 2  # where there is room, a line is enough


def test_unknown_values_are_a_dash() -> None:
    """So each row has all columns."""
    bare = LockInfo("job", LockState.HELD, None, "", None, None, NOW)
    kept = LockInfo("job", LockState.HELD, 1, "", NOW, NOW, NOW, kept=True)
    assert [line.split() for line in lock_table([bare, kept], None)][1:] == [
        ["job", "held", "-", "-", "no", "end", "-", "-", "unknown", "holder"],
        ["job", "kept", "0s", "-", "0s", "-", "1", "unknown", "holder"],
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1234collectPayment", "1234collectPayment"),
        ("Grüße 日本語 🔒 <script>", "Grüße 日本語 🔒 <script>"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\u202eb\u2066", r"a\u202eb\u2066"),
        ("a\u200bb\u2028\udcff", r"a\u200bb\u2028\udcff"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_escaped(text: str, shown: str) -> None:
    """Letters of all languages are not."""
    assert printable(text) == shown


def test_escaped_text_is_printable() -> None:
    """Whatever it was: here, each character of the first planes' beginning."""
    assert printable("".join(map(chr, range(0x3000)))).isprintable()


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("🔒", 2)])
def test_wide_and_combining_characters_take_two_cells_and_none(text: str, width: int) -> None:
    """As terminals show them."""
    assert cells(text) == width


def test_screen_is_drawn_over_the_one_before_and_fits() -> None:
    """A line that wraps counts for each line that it takes; the last line says what is missing."""
    size = terminal_size((10, 5))
    assert screen(["a", "b"], size) == "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"
    four = screen(["1", "2", "3", "4"], size)
    assert four == "\x1b[H" + "".join(f"{n}\x1b[K\n" for n in "1234") + "\x1b[J"
    shown = screen(["x" * 11, "2", "3", "4"], size)
    assert shown == "\x1b[H" + "x" * 11 + "\x1b[K\n2\x1b[K\n… 2 lines more\x1b[K\n\x1b[J"
