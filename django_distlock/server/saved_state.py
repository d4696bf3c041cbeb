"""The state that a lock server saves in a file for the next one.

While it runs, the file says so, and how long its leases last; at an orderly stop, the table is
saved. So the next server knows whether leases may be in force that are in no table, and how long.
"""

import json
import math
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from django_distlock import clocks

from .addresses import Address
from .errors import FutureToken
from .locks import LockSnapshot
from .pauses import PauseSnapshot
from .protocol import parse
from .tokens import check_token

VERSION: Final = 1
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
"""A file with another content after each start of this machine."""

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
    """No lock server wrote what is in the file."""


@dataclass(frozen=True)
class SavedState:
    """The state of an earlier server; `locks` is None if it crashed."""

    max_ttl: float
    """The longest lease of it, and of servers before it that may be in force, in seconds."""
    last_token: int
    locks: list[LockSnapshot] | None
    grace: float
    """Seconds for which it would have granted nothing: until then, `locks` may lack some."""
    pauses: list[PauseSnapshot]
    elapsed: float
    """Seconds since the state was saved; 0 if the machine was started since."""


def default_path(address: Address) -> Path:
    """Return where the server at this address saves its state: each has a file of its own."""
    return _state_directory().absolute() / f"{quote(str(address), safe='')}.json"


def _state_directory() -> Path:
    if directories := os.environ.get("STATE_DIRECTORY"):  # set by systemd
        return Path(directories.partition(":")[0])
    if base := os.environ.get("XDG_STATE_HOME"):
        return Path(base, "django_distlock")
    try:
        return Path.home() / ".local/state/django_distlock"
    except RuntimeError as error:
        raise ValueError(f"Give --state: {error}") from error


class StateFile:
    """The state file of a server. It has the owners' secrets: only its user can read it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> SavedState | None:
        """Return the state of an earlier server; None if there is no file. Unreadable if broken."""
        try:
            text = self.path.read_bytes()
            return _parse(parse(text))
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            # Not its repr(), which may have the whole content of the file.
            raise Unreadable(f"{self.path}: {type(error).__name__}: {error}") from error

    def write_running(self, max_ttl: float, last_token: int, pauses: list[PauseSnapshot]) -> None:
        """Save that a server runs that grants leases of this length, in case it crashes."""
        self._write(pauses, max_ttl=max_ttl, last_token=last_token, locks=None, grace=0)

    def write_locks(
        self,
        max_ttl: float,
        last_token: int,
        locks: list[LockSnapshot],
        pauses: list[PauseSnapshot],
        grace: float,
    ) -> None:
        """Save the table, and for how long holders may still reclaim leases that it lacks."""
        self._write(pauses, max_ttl=max_ttl, last_token=last_token, locks=locks, grace=grace)

    def _write(self, pauses: list[PauseSnapshot], **content: Any) -> None:
        content["pauses"] = [pause.as_list() for pause in pauses]
        try:
            self._replace(content)
        except OSError as error:
            raise OSError(
                error.errno, f"The state can't be written: {error.strerror}", str(self.path)
            ) from error

    def _replace(self, content: dict[str, Any]) -> None:
        """Replace the file atomically and durably."""
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


def _parse(content: dict[str, Any]) -> SavedState:
    if content["version"] != VERSION:
        raise ValueError(f"version {content['version']!r} is unknown")
    locks = content["locks"]
    if locks is not None and type(locks) is not list:
        raise TypeError("the locks are not a list")
    # The monotonic clock counts from the machine's start. After another start, nobody knows how
    # long the machine was down. Not counting that time makes leases last too long, never too short.
    elapsed = clocks.monotonic() - _number(content["at"]) if content["boot"] == _boot() else 0.0
    return SavedState(
        max_ttl=_number(content["max_ttl"]),
        last_token=_token(content["last_token"]),
        locks=None if locks is None else [_lock(*lock) for lock in locks],
        grace=_number(content["grace"]),
        pauses=[_pause(*pause) for pause in content["pauses"]],
        elapsed=max(0.0, elapsed),
    )


def _lock(
    semaphore: object,
    owner: object,
    token: object,
    holder: object,
    acquired_at: object,
    remaining: object,
    renewed_at: object,
) -> LockSnapshot:
    return LockSnapshot(
        _text(semaphore),
        _text(owner),
        _token(token),
        _text(holder),
        _token(acquired_at),
        _number(remaining),
        _token(renewed_at),
    )


def _pause(
    prefix: object, since: object, remaining: object, reason: object, by: object
) -> PauseSnapshot:
    seconds = math.inf if remaining is None else _number(remaining)
    return PauseSnapshot(_text(prefix), _token(since), seconds, _text(reason), _text(by))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a value is not a text")
    return value


def _token(value: object) -> int:
    """Return a token, or the time of a grant, which has the same limits."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("a value is not an integer")
    check_token(value, time.time_ns() // 1000)
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError("a value is not a number")
    return float(value)


def _boot() -> str:
    """Return the identity of this start of the machine; a new one each time if it is unknown."""
    try:
        return BOOT_ID.read_text()
    except OSError:
        return f"{os.getpid()} {time.time_ns()}"
