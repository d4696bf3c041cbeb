"""What a terminal shows of a command that watches."""

from collections.abc import Iterable, Iterator
from os import terminal_size
from typing import Final

from .text import cells

HOME: Final = "\x1b[H"
CLEAR_LINE: Final = "\x1b[K"
CLEAR_BELOW: Final = "\x1b[J"


def screen(lines: Iterable[str], size: terminal_size) -> str:
    """Return what draws these lines over the previous ones, as far as they fit the terminal."""
    drawn = "".join(f"{line}{CLEAR_LINE}\n" for line in _fitting(list(lines), size))
    return f"{HOME}{drawn}{CLEAR_BELOW}"


def _fitting(lines: list[str], size: terminal_size) -> Iterator[str]:
    """Yield the lines, or the first ones and how many are missing. The cursor needs a line, too."""
    left = size.lines - 1
    for number, line in enumerate(lines):
        left -= _height(line, size)
        if left < 0 or (left == 0 and number + 1 < len(lines)):
            yield f"… {len(lines) - number} lines more"
            return
        yield line


def _height(line: str, size: terminal_size) -> int:
    """Return how many lines of the terminal it takes."""
    return max(1, -(-cells(line) // size.columns))
