"""Files that only one lock server at a time may use."""

import fcntl
import os
from pathlib import Path


class InUse(Exception):
    """Another lock server, which runs, uses the path."""


class PathLock:
    """The right of this process to use a path, until it is closed or the process ends."""

    def __init__(self, path: Path) -> None:
        """Raise InUse if another server has it; OSError if the directory can't be written to."""
        self._file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise InUse(
                f"Another running lock server uses {path}: stop it, or give another path."
            ) from None

    def close(self) -> None:
        """Release the path, for other servers to use."""
        os.close(self._file)
