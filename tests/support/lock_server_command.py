"""The command that runs lock servers, in separate processes."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import pytest
from django.core.management import call_command
from django.test import override_settings

from django_distlock.backends.server import ServerBackend
from django_distlock.records import LeaseClaim
from tests.support.children import tied
from tests.support.lock_servers import write_secret
from tests.support.paths import ROOT
from tests.support.ports import HOST, reserved_port

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKEND = "django_distlock.backends.server.ServerBackend"
SECRET = "correct horse battery staple"


def said(*arguments: str, **distlock: Any) -> str:
    """Return the output of the command in this process, with these settings.

    It must not get as far as serving; a refusal raises CommandError.
    """
    output = StringIO()
    with override_settings(DISTLOCK=distlock):
        call_command("run_lock_server", *arguments, stdout=output)
    return output.getvalue()


def server_settings(address: str = f"{HOST}:7433", **options: Any) -> dict[str, Any]:
    """Return an entry for DISTLOCK."""
    return {"BACKEND": BACKEND, "OPTIONS": {"address": address, "secret": SECRET, **options}}


@contextmanager
def systemd_socket(address: Path | str) -> Iterator[socket.socket]:
    """Return a socket like systemd's, which the server notifies."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(60)
        listener.bind(str(address))
        yield listener


class Command:
    """The command in a separate process, with its output."""

    def __init__(self, *arguments: str, begin: tuple[str, ...] = (), **variables: Any) -> None:
        path = os.pathsep.join(filter(None, (variables.pop("PYTHONPATH", ""), str(ROOT))))
        environment = {
            "DJANGO_SETTINGS_MODULE": "tests.support.lock_server_settings",
            "PYTHONPATH": path,
            **variables,
        }
        command = [sys.executable, "-m", "django", "run_lock_server", "--no-color", *arguments]
        self.process = subprocess.Popen(
            tied([*begin, *command]),
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.end()

    def until(self, text: str) -> str:
        """Return its output up to the first line that has this."""
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if text in line:
                return said
        pytest.fail(said + self.end()[2])

    def serve(self) -> str:
        """Return its output until it serves."""
        return self.until("Serving locks at")

    def end(self) -> tuple[int, str, str]:
        """Return its exit status, and the rest of stdout and stderr."""
        try:
            said, complained = self.process.communicate(timeout=60)
        finally:
            self.process.kill()
        return self.process.returncode, said, complained

    def stop(self) -> tuple[int, str, str]:
        """Send SIGTERM. See end()."""
        self.process.terminate()
        return self.end()

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()
        self.process.wait()

    def refusal(self) -> str:
        """Return the one line with which it ends."""
        status, _, complained = self.end()
        assert status == 1
        assert complained.startswith("CommandError: ")
        assert complained.count("\n") == 1
        return complained.removeprefix("CommandError: ").strip()


class Place:
    """Where an operator runs lock servers, one after the other: an address, a secret, a state."""

    def __init__(self, directory: Path, port: int, *, unix: bool = False) -> None:
        self.directory = directory
        self.socket = directory / "socket"
        self.address = f"unix:{self.socket}" if unix else f"{HOST}:{port}"
        self.secret_file = write_secret(
            directory / "secret", f"{secrets.token_urlsafe()}\n".encode()
        )
        self.state = directory / "state" / "locks.json"

    @property
    def at(self) -> list[str]:
        """Return the arguments for the server's address and secret."""
        return ["--bind", self.address, "--secret-file", str(self.secret_file)]

    def start(self, *arguments: str, **variables: Any) -> Command:
        """Start a server, which need not serve yet."""
        return Command(*self.at, "--state", str(self.state), *arguments, **variables)

    @contextmanager
    def store(self) -> Iterator[ServerBackend]:
        """Return a lock backend that uses the server."""
        store = ServerBackend(
            "place", address=self.address, secret_file=str(self.secret_file), store_timeout=60
        )
        try:
            yield store
        finally:
            store.close()

    def acquire(self, *semaphores: str, ttl: float = 1000, owner: str = "owner") -> list[int]:
        """Return the tokens."""
        with self.store() as store:
            grants = [store.acquire(each, owner, ttl, "a host") for each in semaphores]
        return [grant.token for grant in grants if grant and grant.token is not None]

    def release(self, *semaphores: str, keep: float = 0, owner: str = "owner") -> None:
        """Release locks that the owner must hold."""
        with self.store() as store:
            for each in semaphores:
                assert store.release(LeaseClaim(each, owner, 1000), keep)

    def held(self) -> dict[str, float]:
        """Return the seconds for which each lock is still held."""
        with self.store() as store:
            return {
                lock.semaphore: (lock.expires_at - lock.seen_at).total_seconds()
                for lock in store.held()
                if lock.expires_at is not None
            }


@contextmanager
def new_place(*, unix: bool = False) -> Iterator[Place]:
    """Return a place whose files last as long as the block."""
    with TemporaryDirectory(prefix="distlock-") as directory, reserved_port() as port:
        yield Place(Path(directory), port, unix=unix)
