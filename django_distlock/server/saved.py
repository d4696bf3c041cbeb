"""What a lock server leaves in a file: its table at an orderly stop, and in between, that it ran.

So the next one knows whether leases may be in force of which it has no table, and how long.
"""

import fcntl
import json
import math
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from django_distlock import clocks

from .protocol import parse
from .table import Described, FutureToken, check_token

VERSION: Final = 1
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


UNREADABLE: Final = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    OverflowError,
    RecursionError,
    FutureToken,
)


class Unreadable(Exception):
    """The file has something else than a lock server wrote."""


class InUse(Exception):
    """Another server that runs has it."""


@dataclass(frozen=True)
class Earlier:
    """What an earlier server left: `locks` is None if it couldn't save them."""

    max_ttl: float
    """Seconds that a lease lasts at most, of it and of those before it whose leases last still."""
    last_token: int
    locks: list[Described] | None
    grace: float
    """Seconds for which it would have granted nothing: so long its locks may not be all."""
    elapsed: float
    """Seconds since it saved them, as far as the monotonic clock knows; else none."""


class Claimed:
    """The right of one server at a time to a path: kept until the process ends, however it does."""

    def __init__(self, path: Path) -> None:
        """Raise InUse if another has it; OSError if the directory can't be written to."""
        self._file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise InUse(
                f"Another lock server, which runs, has {path}: stop it, or give another path."
            ) from None

    def close(self) -> None:
        """Let others have it."""
        os.close(self._file)


class StateFile:
    """The file of a server. It has the owners' secrets, so nobody else may read it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Earlier | None:
        """Return what an earlier server left, None if there was none; else Unreadable."""
        try:
            text = self.path.read_bytes()
            return _parse(parse(text))
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            # Not its repr(), which may have all that is in the file.
            raise Unreadable(f"{self.path}: {type(error).__name__}: {error}") from error

    def write_running(self, max_ttl: float, last_token: int) -> None:
        """Say that a server grants leases of this length, whatever becomes of it."""
        self._write({"max_ttl": max_ttl, "last_token": last_token, "locks": None, "grace": 0})

    def write_locks(
        self, max_ttl: float, last_token: int, locks: list[Described], grace: float
    ) -> None:
        """Save the table for the next server, and for how long it isn't known to have all."""
        self._write({"max_ttl": max_ttl, "last_token": last_token, "locks": locks, "grace": grace})

    def _write(self, content: dict[str, Any]) -> None:
        try:
            self._replace(content)
        except OSError as error:
            raise OSError(
                error.errno, f"The state can't be written: {error.strerror}", str(self.path)
            ) from error

    def _replace(self, content: dict[str, Any]) -> None:
        """Write all or nothing, and to the disk."""
        content |= {"version": VERSION, "at": clocks.monotonic(), "boot": _boot()}
        new = self.path.with_name(f"{self.path.name}.new")
        with suppress(FileNotFoundError):
            new.unlink()
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(content))  # several times as fast as dump()
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _parse(content: dict[str, Any]) -> Earlier:
    if content["version"] != VERSION:
        raise ValueError(f"version {content['version']!r} is unknown")
    locks = content["locks"]
    if locks is not None and type(locks) is not list:
        raise TypeError("the locks are no list")
    # Its monotonic clock counts from when the machine started. After another start nobody knows
    # how long it was down; not to count that keeps others out for longer, not too short.
    elapsed = clocks.monotonic() - _number(content["at"]) if content["boot"] == _boot() else 0.0
    return Earlier(
        max_ttl=_number(content["max_ttl"]),
        last_token=_token(content["last_token"]),
        locks=None if locks is None else [_lock(*lock) for lock in locks],
        grace=_number(content["grace"]),
        elapsed=max(0.0, elapsed),
    )


def _lock(
    semaphore: object,
    owner: object,
    token: object,
    holder: object,
    acquired_at: object,
    left: object,
) -> Described:
    return Described(
        _text(semaphore),
        _text(owner),
        _token(token),
        _text(holder),
        _token(acquired_at),
        _number(left),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("there is something else than a text")
    return value


def _token(value: object) -> int:
    """Return a token, or the time of a grant, of which the same is true."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("there is something else than an integer")
    check_token(value, time.time_ns() // 1000)
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError("there is something else than a number")
    return float(value)


def _boot() -> str:
    """Return what is another one after each start of this machine; nothing if that isn't told."""
    try:
        return BOOT_ID.read_text()
    except OSError:
        return f"{os.getpid()} {time.time_ns()}"
