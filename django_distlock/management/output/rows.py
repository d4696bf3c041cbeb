"""The JSON that commands print."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.core.management.base import OutputWrapper

from django_distlock.records import LockInfo, Pause

Row = dict[str, Any]


def lock_row(backend: str, lock: LockInfo) -> Row:
    """Return the row of a lock in the store with this alias."""
    return {
        "backend": backend,
        "semaphore": lock.semaphore,
        "state": lock.state.value,
        "holder": lock.holder,
        "label": lock.label,
        "token": lock.token,
        "acquired_at": _text(lock.acquired_at),
        "renewed_at": _text(lock.renewed_at),
        "expires_at": _text(lock.expires_at),
        "kept": lock.kept,
        "waiting": lock.waiting,
    }


def pause_row(backend: str, pause: Pause) -> Row:
    """Return the row of a pause."""
    return {
        "backend": backend,
        "prefix": pause.prefix,
        "since": _text(pause.since),
        "until": _text(pause.until),
        "reason": pause.reason,
        "by": pause.by,
    }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


@contextmanager
def json_array(
    stream: OutputWrapper, *, on_one_line: bool = False
) -> Iterator[Callable[[Row], None]]:
    """Yield a function that writes a row. The array is complete even if the block raises.

    Rows are written as they come, each on a line of its own: there may be a million.
    """
    between = "" if on_one_line else "\n"
    count = 0

    def write(row: Row) -> None:
        nonlocal count
        stream.write(("[" if count == 0 else ",") + between + json.dumps(row), ending="")
        count += 1

    try:
        yield write
    finally:
        stream.write(between + "]" if count else "[]")
