"""Lock servers, and backends that use them.

The plugin imports it before the measurement of coverage begins: so it imports the package late.
"""

from __future__ import annotations

import json
import secrets
import signal
import socket
import ssl
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trustme

from tests.support.paths import ROOT
from tests.support.ports import HOST
from tests.support.servers import Home, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from django_distlock.backends.server import ServerBackend
    from tests.support.processes import Workers

ALIAS = "lock_server"
KINDS = ["lock_server", "lock_server_unix", "lock_server_tls"]
"""Names of the servers that all tests share, by how they are reached."""
PATIENCE = 30.0
"""Seconds for each call, unless a test is about them: no stall of this machine is an outage."""
MOVED_CLOCK = "tests.support.moved_clock_settings"
PATH = "django_distlock.backends.server.ServerBackend"


def lock_server(
    *arguments: str,
    unix: bool = False,
    tls: bool = False,
    grace: bool = False,
    settings: str = "tests.support.lock_server_settings",
) -> Server:
    """Return a lock server that is not started yet.

    Its settings have the OPTIONS of a backend that uses it. Its state is in its directory, which
    outlasts a kill; with `grace` it grants nothing at first.
    """
    home = Home.create("server")
    secret_file = write_secret(home.directory / "secret", f"{secrets.token_urlsafe(32)}\n".encode())
    path = home.directory / "socket"
    address = f"unix:{path}" if unix else f"{HOST}:{home.port}"
    options = {"address": address, "secret_file": str(secret_file)}
    where = ["--unix", str(path)] if unix else ["--bind", address]
    if tls:
        options["tls_ca"] = str(home.directory / "authority.pem")
        where += _certify(home.directory, Path(options["tls_ca"]))

    def connect() -> Any:
        connection = connect_to(options)
        if not connection.recv(64).startswith(b'{"distlock":'):
            raise RuntimeError("it doesn't answer")
        return connection

    return Server(
        home,
        [
            *(sys.executable, "-m", "django", "run_lock_server"),
            *("--settings", settings, "--pythonpath", str(ROOT)),
            *where,
            *("--secret-file", str(secret_file), "--state", str(state_file(home.directory))),
            *("--max-ttl", "100000"),
            *(() if grace else ("--no-grace",)),
            *arguments,
        ],
        connect,
        stop_signal=signal.SIGTERM,
        options={"OPTIONS": options},
    )


def start_lock_server(*arguments: str, **options: Any) -> Server:
    """Start a lock server. See lock_server()."""
    return lock_server(*arguments, **options).begin()


@contextmanager
def flawless_lock_server(*arguments: str, **options: Any) -> Iterator[Server]:
    """Run a lock server, whose log must have no failure at the end."""
    with start_lock_server(*arguments, **options) as running:
        yield running
        assert "Traceback" not in Path(running.log.name).read_text(errors="replace")


def start_careful_lock_server(*arguments: str, **options: Any) -> Server:
    """Start one that grants at once, but that grants nothing at first after a kill."""
    server = start_lock_server(*arguments, **options)
    parts = server.executor.command_parts
    assert isinstance(parts, list)
    parts.remove("--no-grace")
    return server


def write_secret(path: Path, secret: bytes) -> Path:
    """Write a file that only this user can read; return its path."""
    path.touch(mode=0o600)
    path.write_bytes(secret)
    return path


def move_clock(directory: Path, seconds: float) -> None:
    """Set the clocks of the server in this directory ahead; its settings must be MOVED_CLOCK."""
    new = directory / "not yet moved"
    new.write_text(str(seconds))
    new.replace(directory / "moved")


def state_file(directory: Path) -> Path:
    """Return where a server in this directory saves its locks."""
    return directory / "state.json"


def _certify(directory: Path, authority: Path) -> list[str]:
    """Return the server's arguments for a certificate of an authority of its own."""
    own = trustme.CA()
    own.cert_pem.write_to_path(authority)
    certificate = own.issue_cert(HOST)
    names = {"--tls-cert": directory / "certificate.pem", "--tls-key": directory / "key.pem"}
    certificate.cert_chain_pems[0].write_to_path(names["--tls-cert"])
    certificate.private_key_pem.write_to_path(names["--tls-key"])
    return [str(each) for pair in names.items() for each in pair]


def connect_to(options: dict[str, Any]) -> socket.socket:
    path = options["address"].removeprefix("unix:")
    if path != options["address"]:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(1)
        with _closed_unless_it_works(connection):
            connection.connect(path)
        return connection
    connection = socket.create_connection((HOST, int(path.rpartition(":")[2])), 1)
    if "tls_ca" not in options:
        return connection
    context = ssl.create_default_context(cafile=options["tls_ca"])
    with _closed_unless_it_works(connection):
        return context.wrap_socket(connection, server_hostname=HOST)


@contextmanager
def _closed_unless_it_works(connection: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def options_of(server: Server, **options: Any) -> dict[str, Any]:
    """Return the OPTIONS of a backend that uses this server."""
    return {**server.settings["OPTIONS"], **options}


def secret_of(server: Server) -> bytes:
    """Return the secret of the server's clients."""
    return Path(options_of(server)["secret_file"]).read_bytes().strip()


@contextmanager
def locks_of(server: Server, **options: Any) -> Iterator[ServerBackend]:
    """Use this server for the lock backend ALIAS, with these OPTIONS in addition."""
    with locks_by(options_of(server, **options)) as found:
        yield found


@contextmanager
def locks_by(options: dict[str, Any]) -> Iterator[ServerBackend]:
    """Use these OPTIONS for the lock backend ALIAS, with a long time limit unless they set one."""
    from django.test import override_settings

    from django_distlock import lock_backends
    from django_distlock.backends.server import ServerBackend

    backend = {"BACKEND": PATH, "OPTIONS": {"store_timeout": PATIENCE, **options}}
    with override_settings(DISTLOCK={ALIAS: backend}):
        found = lock_backends[ALIAS]
        assert isinstance(found, ServerBackend)
        try:
            yield found
        finally:
            found.close()


def locks_at(server: Server, port: int, **options: Any) -> Any:
    """Reach the server through a proxy at this port. See locks_of()."""
    return locks_of(server, address=f"{HOST}:{port}", **options)


def environment_at(server: Server, **options: Any) -> dict[str, str]:
    """Return the environment in which another process's lock backend ALIAS uses this server."""
    return {"DISTLOCK_TEST_LOCK_SERVER": json.dumps({"OPTIONS": options_of(server, **options)})}


def workers_at(server: Server, number: int, *command: str, **options: Any) -> Workers:
    """Start worker processes that use this server."""
    from tests.support.processes import Workers

    return Workers(number, *command, **environment_at(server, **options))


def host_and_port(server: Server) -> tuple[str, int]:
    """Return the host and port on which it listens."""
    return HOST, server.port


def waiting(store: ServerBackend) -> int:
    """Return how many wait, according to the server."""
    return int(store.status()["waiters"])


def is_unused(store: ServerBackend) -> bool:
    """Return whether nobody holds a lock or waits for one."""
    status = store.status()
    return not status["locks"] and not status["waiters"]


def listens(store: ServerBackend) -> bool:
    """Return whether a thread of this process listens to the server."""
    names = [thread.name for thread in threading.enumerate()]
    return f"django_distlock listener: {store.server}" in names


def note_places(patch: pytest.MonkeyPatch) -> list[Any]:
    """Collect this process's places in queues, each as soon as its waiter knows of it.

    The server knows of it earlier: a waiter that joins while the server stops gets no place.
    """
    from django_distlock.backends.server import ServerBackend

    found: list[Any] = []
    join, ajoin = ServerBackend.join, ServerBackend.ajoin

    def join_and_note(*arguments: Any, **options: Any) -> Any:
        found.append(join(*arguments, **options))
        return found[-1]

    async def ajoin_and_note(*arguments: Any, **options: Any) -> Any:
        place = await ajoin(*arguments, **options)
        found.append(place)
        return place

    patch.setattr(ServerBackend, "join", join_and_note)
    patch.setattr(ServerBackend, "ajoin", ajoin_and_note)
    return found
