"""An owner that tests know, and the frames in which it shows."""

from __future__ import annotations

import secrets
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from django_distlock.records import Owner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SECRET = secrets.token_hex(16)
"""A global, since what is local to functions is looked through, too."""


class Interrupter:
    """Raises at the n-th line, in any code, at which a local variable shows the secret."""

    def __init__(self, number: int, kind: type[BaseException]) -> None:
        self.left = number
        self.kind = kind
        self.has_raised = False

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Raise in this block, once."""
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not self.has_raised and event == "line" and shows(frame):
            if not self.left:
                self.has_raised = True
                raise self.kind
            self.left -= 1
        return self._trace


def shows(frame: FrameType) -> bool:
    """Return whether the repr of one of the frame's variables has the secret."""
    values = [each for each in frame.f_locals.values() if type(each) in SHOWN]
    with suppress(Exception):  # of an object that isn't complete yet
        return SECRET in repr(values)
    return False


SHOWN = {str, bytes, bytearray, list, tuple, dict}


def shown_by(error: BaseException) -> list[str]:
    """Return the functions with the secret, of all tracebacks that the error leads to."""
    found, errors, seen = [], [error], set()
    while errors:
        each = errors.pop()
        seen.add(id(each))
        traceback = each.__traceback__
        while traceback is not None:
            if shows(traceback.tb_frame):
                found.append(traceback.tb_frame.f_code.co_qualname)
            traceback = traceback.tb_next
        linked = (each.__cause__, each.__context__, *getattr(each, "exceptions", ()))
        errors += [one for one in linked if one is not None and id(one) not in seen]
    return found


def known_owner() -> Owner:
    """Return the secret."""
    return Owner(SECRET)
