"""A disk that a run can fill up: a small file system in memory, which only root can mount."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def can_mount() -> bool:
    """Return whether this process may mount file systems."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


class SmallDisk:
    """A small file system at a path, in a block."""

    def __init__(self, path: Path, account: dict[str, Any], megabytes: int) -> None:
        self.path = path
        self._account = account
        self._options = f"size={megabytes}m"

    def __enter__(self) -> Self:
        self.path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", self._options, "tmpfs", str(self.path)]
        subprocess.run(command, check=True)
        if self._account:
            os.chown(self.path, self._account["user"], self._account["group"])
            self.path.chmod(0o700)
        return self

    def __exit__(self, *exception: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Fill it up in the block."""
        ballast = self.path / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(65536))
            yield
        finally:
            ballast.unlink()
