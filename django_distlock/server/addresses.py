"""Addresses of lock servers."""

import re
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final, NamedTuple

from .protocol import DEFAULT_PORT

DEFAULT: Final = f"127.0.0.1:{DEFAULT_PORT}"
UNIX: Final = "unix:"
LONGEST_UNIX_PATH: Final = 107
"""Bytes that Linux allows."""


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
        """Whether no message leaves this machine."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """Parse "host:port", "[::1]:port" or "unix:/path"; ValueError if the text is none of these."""
    if not isinstance(text, str):
        raise TypeError(f'an address is a text such as "{DEFAULT}", not {text!r}')
    if text.startswith(UNIX):
        return unix_address(text.removeprefix(UNIX))
    host, separator, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        _check_ipv6(text, host)
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address needs brackets, as in [::1]:{DEFAULT_PORT}")
    if not (separator and host):
        raise ValueError(f'{text!r} is not "host:port", "[::1]:port" or "unix:/path"')
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: the port is a number from 1 to 65535")
    if any(not label or len(label) > 63 for label in host.removesuffix(".").split(".")):
        raise ValueError(f"{text!r}: {host!r} can't be the name of a host")
    if not host.isascii() or not host.isprintable() or " " in host:
        raise ValueError(
            f"{text!r}: {host!r} can't be the name of a host: write it in ASCII (IDNA)"
        )
    return Address(host, int(port))


def _check_ipv6(text: str, host: str) -> None:
    try:
        IPv6Address(host)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from error


def unix_address(path: str) -> Address:
    """Return the address of a unix socket; ValueError if no socket can have this path."""
    if not path or "\0" in path:
        raise ValueError(f"{path!r} can't be the path of a unix socket")
    absolute = str(Path(path).absolute())
    if len(absolute.encode(errors="surrogateescape")) > LONGEST_UNIX_PATH:
        raise ValueError(
            f"{absolute!r} is longer than the {LONGEST_UNIX_PATH} bytes of a unix socket's path"
        )
    return Address("", 0, absolute)
