"""The secret that a lock server and its clients share."""

import os
import shlex
import stat
from pathlib import Path

from .protocol import SHORTEST_SECRET


def check_secret(secret: str | bytes) -> bytes:
    """Return the secret as bytes; ValueError if it is too short."""
    if not isinstance(secret, str | bytes):
        raise TypeError("secret is a text")
    found = secret.encode() if isinstance(secret, str) else secret
    if len(found) < SHORTEST_SECRET:
        raise ValueError(
            f"the secret has {len(found)} bytes, but needs {SHORTEST_SECRET}: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))" makes one'
        )
    return found


def read_secret(path: str) -> bytes:
    """Read a secret from a file, without the line's end; OSError or ValueError."""
    with Path(path).open("rb") as file:
        _check_private(path, os.fstat(file.fileno()))
        return check_secret(file.read().rstrip(b"\r\n"))


def _check_private(path: str, status: os.stat_result) -> None:
    """Raise ValueError if others can read the file.

    If another user owns the file, such as root, its group may read it: that is how a process that
    isn't the owner gets the secret.
    """
    ours = status.st_uid == os.geteuid()
    mode = stat.S_IMODE(status.st_mode)
    if mode & (0o077 if ours else 0o007):
        raise ValueError(
            f"{path!r} has the mode {mode:04o}, so others can read the secret: "
            f"chmod {'600' if ours else '640'} {shlex.quote(path)}"
        )
