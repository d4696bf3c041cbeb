"""A simulated disk: what was not written through is torn when the power fails."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Self

from .scheduler import Scheduler

if TYPE_CHECKING:
    from .machines import Machine

OS_FLAGS: Final = ("O_WRONLY", "O_CREAT", "O_EXCL", "O_CLOEXEC", "O_RDONLY")


class PowerFailure(SystemExit):
    """The power failed during an operation on the disk. asyncio lets a SystemExit pass."""


class Content:
    """What is in a file, as processes see it and as it is on the disk."""

    def __init__(self) -> None:
        self.seen = b""
        self.durable = b""


class Disk:
    """The only directory of a machine. Changes of names are written through in their order."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.fails_after: int | None = None
        """The number of further operations after which the power fails."""
        self._names: dict[str, Content] = {}
        self._durable_names: dict[str, Content] = {}
        self._renamings: list[dict[str, Content]] = []
        """The names after each change that was not written through yet."""
        self._open: dict[int, Content | None] = {}

    def _operate(self) -> None:
        """Count an operation; the power may fail before it."""
        if Scheduler.current.is_over:
            raise GeneratorExit
        if self.fails_after is not None:
            self.fails_after -= 1
            if self.fails_after < 0:
                self.fails_after = None
                self.machine.fail()
                raise PowerFailure

    def _rename(self, names: dict[str, Content]) -> None:
        self._names = names
        self._renamings.append(names)

    def lose_power(self) -> None:
        """Keep what was written through, and of the rest a part, as it happens."""
        random = Scheduler.current.random
        states = [self._durable_names, *self._renamings]
        self._names = self._durable_names = random.choice(states)
        self._renamings.clear()
        self._open.clear()
        for content in self._names.values():
            if content.seen != content.durable:
                kept = random.randint(0, len(content.seen))
                content.seen = content.durable = content.seen[:kept]

    # What StateFile uses

    def open(self, path: DiskPath, flags: int, mode: int = 0o600) -> int:
        """See os.open()."""
        self._operate()
        number = len(self._open)
        if not flags & os.O_CREAT:
            self._open[number] = None  # the directory
            return number
        if path.name in self._names:
            raise FileExistsError(path.name)
        content = self._open[number] = Content()
        self._rename({**self._names, path.name: content})
        return number

    def fdopen(self, number: int, mode: str, encoding: str) -> OpenFile:
        """See os.fdopen()."""
        content = self._open[number]
        assert content is not None
        return OpenFile(self, number, content)

    def fsync(self, number: int) -> None:
        """See os.fsync()."""
        self._operate()
        self.write_through(number)

    def write_through(self, number: int) -> None:
        """Put on the disk what was written so far."""
        content = self._open[number]
        if content is None:
            self._durable_names = self._names
            self._renamings.clear()
        else:
            content.durable = content.seen

    def close(self, number: int) -> None:
        """See os.close()."""

    def write(self, content: Content, data: bytes) -> None:
        """Write to a file."""
        self._operate()
        content.seen += data

    def read(self, name: str) -> bytes:
        """Return what is in a file; FileNotFoundError."""
        if name not in self._names:
            raise FileNotFoundError(name)
        return self._names[name].seen

    def remove(self, name: str) -> None:
        """See Path.unlink()."""
        self._operate()
        if name not in self._names:
            raise FileNotFoundError(name)
        self._rename({each: found for each, found in self._names.items() if each != name})

    def move(self, name: str, to: str) -> None:
        """See Path.replace()."""
        self._operate()
        names = {**self._names, to: self._names[name]}
        del names[name]
        self._rename(names)


class OpenFile:
    """See io.TextIOWrapper."""

    def __init__(self, disk: Disk, number: int, content: Content) -> None:
        self._disk = disk
        self._number = number
        self._content = content

    def write(self, text: str) -> None:
        """See TextIOWrapper."""
        self._disk.write(self._content, text.encode())

    def flush(self) -> None:
        """See TextIOWrapper. Nothing is kept back."""

    def fileno(self) -> int:
        """See TextIOWrapper."""
        return self._number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._disk.close(self._number)


class DiskPath:
    """See pathlib.Path."""

    def __init__(self, disk: Disk, name: str) -> None:
        self.name = name
        self._disk = disk

    def __str__(self) -> str:
        return f"/state/{self.name}"

    @property
    def parent(self) -> DiskPath:
        """See Path."""
        return DiskPath(self._disk, "")

    def with_name(self, name: str) -> DiskPath:
        """See Path."""
        return DiskPath(self._disk, name)

    def mkdir(self, **options: object) -> None:
        """See Path. The directory is there."""

    def read_bytes(self) -> bytes:
        """See Path."""
        return self._disk.read(self.name)

    def unlink(self) -> None:
        """See Path."""
        self._disk.remove(self.name)

    def replace(self, target: DiskPath) -> None:
        """See Path."""
        self._disk.move(self.name, target.name)


def os_module(disk: Disk) -> Any:
    """Return what saved_state finds in the module os."""
    return SimpleNamespace(
        open=disk.open,
        fdopen=disk.fdopen,
        fsync=disk.fsync,
        close=disk.close,
        getpid=os.getpid,
        **{name: getattr(os, name) for name in OS_FLAGS},
    )
