"""The sockets at which a lock server listens."""

import asyncio
import errno
import os
import socket
from pathlib import Path

from .addresses import Address


async def bind(address: Address) -> list[socket.socket]:
    """Return bound sockets: one for each of the host's addresses, or a unix socket."""
    if address.path:
        return [_unix_socket(address.path)]
    server = await asyncio.get_running_loop().create_server(
        asyncio.Protocol, address.host, address.port, start_serving=False
    )
    try:
        return [sock.dup() for sock in server.sockets]
    finally:
        server.close()


def _unix_socket(path: str) -> socket.socket:
    """Return a socket that only this user can connect to; it replaces that of a dead server."""
    _remove_dead(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.setblocking(False)
    # By the mask, since after a chmod() others could have connected for a moment.
    earlier = os.umask(0o177)
    try:
        bound.bind(path)
    except BaseException:
        bound.close()
        raise
    finally:
        os.umask(earlier)
    return bound


def _remove_dead(path: str) -> None:
    """Remove a socket at which nobody listens; FileExistsError if anything else is there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:  # raised for a regular file, too
            if Path(path).is_socket():
                remove_socket(path)
                return
        except OSError:
            pass
    raise FileExistsError(errno.EEXIST, "It exists, and is not the socket of a dead server")


def remove_socket(path: str) -> None:
    """Remove the socket at this path, unless the path is empty."""
    if path:
        Path(path).unlink(missing_ok=True)
