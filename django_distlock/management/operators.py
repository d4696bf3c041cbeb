"""The operating system's user who runs a command."""

import os
import pwd
import socket
from typing import Final

from django_distlock.arguments import printable

LONGEST: Final = 255
"""Characters at most, as stores take it: SUDO_USER may be longer."""


def operating_system_user() -> str:
    """Return `os user alice@host`; with sudo also the user before it.

    By the process's id: the environment's LOGNAME may say anything, and so may SUDO_USER, which is
    therefore told apart.
    """
    user = f"os user {_name(os.getuid())}@{socket.gethostname()}"
    before = os.environ.get("SUDO_USER")
    return printable(f"{user} (sudo from {before})" if before else user)[:LONGEST]


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # as in a container that runs under any uid
        return str(uid)
