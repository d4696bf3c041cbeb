"""Where the code of a site or of its tests acquires a lock: the file, line and function."""

import os
import sysconfig
from collections.abc import Callable, Iterator
from inspect import currentframe, unwrap
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from django_distlock.concurrency.callers import waiting_task
from django_distlock.leases.registry import LeaseRegistry, current_registry
from django_distlock.leases.state import LeaseState
from django_distlock.locks.acquisition import Acquisition, before_acquisitions
from django_distlock.runtime import Task, running_loop, stack_of, sync_call, waiting_thread
from django_distlock.views import held_calls

PACKAGE: Final = "django_distlock"
LIBRARIES: Final = (
    "<frozen ",
    *(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib")),
)
INSTALLED: Final = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
CROSSINGS: Final = {"asgiref.sync", "asyncio.events"}
"""Modules that run code for other code, which may wait for it in another thread or task."""
DECORATED_CALLS: Final = (held_calls.run.__code__, held_calls.arun.__code__)


class SourceLine(NamedTuple):
    """A line of source code, in a function."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        path = Path(self.file)
        file = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return f"{file}:{self.line}, in {self.function}"

    @classmethod
    def of_call(cls) -> "SourceLine":
        """Return the line of the site's code that runs now.

        Of a decorated function it is the definition: its call may be Django's. Without any code of
        the site, it is the line of the library that asks for the lock.
        """
        libraries: list[FrameType] = []
        for frame in _frames(currentframe()):
            if frame.f_code in DECORATED_CALLS:
                code = _code_of(frame.f_locals["call"].locked.function)
                if code is not None and not _is_library(code):
                    return cls(code.co_filename, code.co_firstlineno, code.co_qualname)
            elif not _is_package(frame):
                if not _is_library(frame.f_code):
                    return cls.of_frame(frame)
                libraries.append(frame)
        return cls.of_frame(libraries[0]) if libraries else UNKNOWN

    @classmethod
    def of_frame(cls, frame: FrameType) -> "SourceLine":
        """Return the line that the frame is at."""
        code = frame.f_code
        return cls(code.co_filename, frame.f_lineno, code.co_qualname)


UNKNOWN: Final = SourceLine("<unknown>", 0, "<unknown>")
"""Where Python has no frames to look at."""


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield the frames of this code, then of the code that waits for it, then what runs both."""
    rest = _stack(frame)
    for each in rest:
        if _module(each) in CROSSINGS:
            yield from _waiting_frames(each)
            yield each
            break
        yield each
    yield from rest


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _waiting_frames(crossing: FrameType) -> Iterator[FrameType]:
    """Yield those of the code that waits in sync_to_async() or async_to_sync() for this one."""
    if running_loop() is not None:
        if thread := waiting_thread():
            yield from _stack(stack_of(thread))
    elif (call := sync_call(crossing)) and (task := waiting_task(call)):
        yield from _suspended_frames(task)


def _suspended_frames(task: Task) -> list[FrameType]:
    """Return the frames of a task that waits, the innermost first."""
    frames: list[FrameType] = []
    awaited: Any = task.get_coro()
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        frames.insert(0, frame)
        awaited = awaited.cr_await
    return frames


def _module(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name


def _is_package(frame: FrameType) -> bool:
    return _module(frame).partition(".")[0] == PACKAGE


def _is_library(code: CodeType) -> bool:
    """Tell whether the code is of Python, or of an installed library."""
    file = code.co_filename
    return file.startswith(LIBRARIES) or any(part in file for part in INSTALLED)


def _code_of(function: Callable[..., Any]) -> CodeType | None:
    """Return the code of a decorated function, as its author wrote it."""
    return getattr(unwrap(function), "__code__", None)


class AcquisitionLines:
    """The source line of each thread's or task's last acquisition.

    It is found in the code that asks for the lock: async code may acquire it in another thread.
    """

    def __init__(self) -> None:
        self._lines: WeakKeyDictionary[LeaseRegistry, SourceLine] = WeakKeyDictionary()

    def start(self) -> None:
        """Record where locks are acquired from now on."""
        before_acquisitions.append(self._note)

    def stop(self) -> None:
        """Stop recording."""
        before_acquisitions.remove(self._note)

    def _note(self, acquisition: Acquisition) -> None:
        self._lines[current_registry()] = SourceLine.of_call()

    def latest(self, registry: object) -> SourceLine | None:
        """Return where the thread or task of this registry asked for a lock the last time."""
        return self._lines.get(registry) if isinstance(registry, LeaseRegistry) else None

    def of(self, lease: LeaseState) -> SourceLine | None:
        """Return where the lease was acquired, just after that."""
        return self.latest(lease.registry())
