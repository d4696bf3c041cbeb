"""What a lock server leaves in a file: its table at an orderly stop, and in between, that it ran.

So the next one knows whether leases may be in force of which it has no table, and how long.
"""

import fcntl
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .. import clocks
from .table import Described

VERSION: Final = 1
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Unreadable(Exception):
    """The file has something else than a lock server wrote."""


class InUse(Exception):
    """Another server that runs has it."""


@dataclass(frozen=True)
class Earlier:
    """What an earlier server left: `locks` is None if it couldn't save them."""

    max_ttl: float
    last_token: int
    locks: list[Described] | None
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
            raise InUse(f"Another lock server, which runs, has {path}.") from None

    def close(self) -> None:
        """Let others have it."""
        os.close(self._file)


class StateFile:
    """The file of a server. It has the owners' secrets, so nobody else may read it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Earlier | None:
        """Return what an earlier server left, None if there was none; Unreadable or OSError."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return _parse(json.loads(text.decode(), parse_constant=_refuse))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Unreadable(f"{self.path} can't be read: {error!r}") from error

    def write_running(self, max_ttl: float, last_token: int) -> None:
        """Say that a server grants leases of this length, whatever becomes of it."""
        self._write({"max_ttl": max_ttl, "last_token": last_token, "locks": None})

    def write_locks(self, max_ttl: float, last_token: int, locks: list[Described]) -> None:
        """Save the table for the next server."""
        self._write({"max_ttl": max_ttl, "last_token": last_token, "locks": locks})

    def _write(self, content: dict[str, Any]) -> None:
        """Write all or nothing, and to the disk."""
        content |= {"version": VERSION, "at": clocks.monotonic(), "boot": _boot()}
        new = self.path.with_name(f"{self.path.name}.new")
        with suppress(FileNotFoundError):
            new.unlink()
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file)
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
    # Its monotonic clock counts from when the machine started. After another start nobody knows
    # how long it was down; not to count that keeps others out for longer, not too short.
    elapsed = clocks.monotonic() - content["at"] if content["boot"] == _boot() else 0.0
    return Earlier(
        max_ttl=float(content["max_ttl"]),
        last_token=int(content["last_token"]),
        locks=None if locks is None else [_lock(*lock) for lock in locks],
        elapsed=max(0.0, elapsed),
    )


def _lock(
    semaphore: str, owner: str, token: int, holder: str, acquired_at: int, left: float
) -> Described:
    if any(type(text) is not str for text in (semaphore, owner, holder)):
        raise TypeError("a lock has something else than texts")
    return Described(semaphore, owner, int(token), holder, int(acquired_at), float(left))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _boot() -> str:
    """Return what is another one after each start of this machine; nothing if that isn't told."""
    try:
        return BOOT_ID.read_text()
    except OSError:
        return f"{os.getpid()} {time.time_ns()}"
