"""Where a lock server is, and by which secret it is known: for itself, and for its clients."""

import os
import re
import shlex
import stat
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final, NamedTuple

from .protocol import DEFAULT_PORT, SHORTEST_SECRET

DEFAULT: Final = f"127.0.0.1:{DEFAULT_PORT}"
UNIX: Final = "unix:"
LONGEST_UNIX_PATH: Final = 107
"""Bytes that Linux takes."""


class Address(NamedTuple):
    """A host and port, or the path of a unix socket."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"{UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether nothing said there leaves this machine."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """Return the address of "host:port", "[::1]:port" or "unix:/path"; ValueError if it is none."""
    if not isinstance(text, str):
        raise TypeError(f'an address is a text such as "{DEFAULT}", not {text!r}')
    if text.startswith(UNIX):
        return unix_address(text.removeprefix(UNIX))
    host, separator, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        _check_number(text, host)
    elif ":" in host:
        raise ValueError(
            f"{text!r}: an IPv6 address stands in brackets, as in [::1]:{DEFAULT_PORT}"
        )
    if not (separator and host):
        raise ValueError(f'{text!r} is none of "host:port", "[::1]:port" and "unix:/path"')
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: the port is a number from 1 to 65535")
    if any(not label or len(label) > 63 for label in host.removesuffix(".").split(".")):
        raise ValueError(f"{text!r}: {host!r} can't be the name of a host")
    if not host.isascii() or not host.isprintable() or " " in host:
        raise ValueError(f"{text!r}: {host!r} can't be the name of a host; IDNA writes it in ASCII")
    return Address(host, int(port))


def _check_number(text: str, host: str) -> None:
    try:
        IPv6Address(host)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from error


def unix_address(path: str) -> Address:
    """Return the address of a unix socket; ValueError if there can be none of this path."""
    if not path or "\0" in path:
        raise ValueError(f"{path!r} is no path for a unix socket")
    absolute = str(Path(path).absolute())
    if len(absolute.encode(errors="surrogateescape")) > LONGEST_UNIX_PATH:
        raise ValueError(
            f"{absolute!r} is longer than the {LONGEST_UNIX_PATH} bytes of a unix socket"
        )
    return Address("", 0, absolute)


def check_secret(secret: str | bytes) -> bytes:
    """Return the secret's bytes; ValueError if it could be guessed."""
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
    """Return the secret that is in a file, without the end of its line; OSError or ValueError."""
    with Path(path).open("rb") as file:
        _check_private(path, os.fstat(file.fileno()))
        return check_secret(file.read().rstrip(b"\r\n"))


def _check_private(path: str, status: os.stat_result) -> None:
    """Raise ValueError if others can read the file.

    A file of another user, of root for instance, may be given to a group: that is how a process
    that isn't its owner gets it.
    """
    ours = status.st_uid == os.geteuid()
    mode = stat.S_IMODE(status.st_mode)
    if mode & (0o077 if ours else 0o007):
        raise ValueError(
            f"{path!r} has the mode {mode:04o}, so others can read the secret: "
            f"chmod {'600' if ours else '640'} {shlex.quote(path)}"
        )
