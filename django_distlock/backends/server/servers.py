"""The lock servers that this process uses. Backends with the same settings share connections."""

import ssl
from typing import Final

from django_distlock.server.addresses import Address
from django_distlock.server.secret import check_secret, read_secret

from .connections import LockServer

_Settings = tuple[Address, bytes, float, bool, str | None]

shared_servers: Final[dict[_Settings, LockServer]] = {}


def shared_server(
    address: Address, secret: bytes, timeout: float, tls: bool, tls_ca: str | None
) -> LockServer:
    """Return the server with these settings, which all threads of this process share."""
    settings = address, secret, timeout, tls, tls_ca
    found = shared_servers.get(settings)
    if found is None:
        context = _client_context(tls_ca) if tls else None
        found = shared_servers.setdefault(settings, LockServer(address, secret, timeout, context))
    return found


def _client_context(tls_ca: str | None) -> ssl.SSLContext:
    """Return a context that trusts the authorities in this file, or else the system's."""
    try:
        return ssl.create_default_context(cafile=tls_ca)
    except OSError as error:
        raise ValueError(f"tls_ca, {tls_ca!r}, can't be used: {error}") from error


def secret_of(secret: str | None, secret_file: str | None) -> bytes:
    """Return the secret of a backend, which is given in one of two ways; ValueError otherwise."""
    if (secret is None) is (secret_file is None):
        raise ValueError("give either secret, a text, or secret_file, the path of a file with it")
    if secret is not None:
        return check_secret(secret)
    try:
        return read_secret(str(secret_file))
    except (OSError, ValueError) as error:
        raise ValueError(f"secret_file: {error}") from error
