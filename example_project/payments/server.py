"""Run the site under gunicorn: several processes, as a real site would."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from django.conf import settings
from django.core.management import CommandError

from payments.processes import started

HOST = "127.0.0.1"


def listen(port: int = 0) -> socket.socket:
    """Take a port, any free one by default. Connections before gunicorn runs wait for it."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise CommandError(f"Can't listen on {HOST}:{port}: {error.strerror}.") from error


def url(listener: socket.socket) -> str:
    """Return the address to open in a browser."""
    return f"http://{HOST}:{listener.getsockname()[1]}/"


@contextmanager
def gunicorn(workers: int) -> Iterator[str]:
    """Run the site until the block ends. Yield its address once every worker is ready."""
    with listen() as listener, _started(listener, workers) as ready:
        for _ in range(workers):
            if not ready.read(1):  # The pipe closes when the last process is gone.
                raise CommandError("gunicorn ended before its workers were ready.")
        yield url(listener)


@contextmanager
def _started(listener: socket.socket, workers: int) -> Iterator[BinaryIO]:
    """Start gunicorn, and stop it at the end. Yield the pipe to which each worker writes a byte."""
    reader, writer = os.pipe()
    with (
        os.fdopen(reader, "rb", buffering=0) as ready,
        started(
            _command(listener, workers),
            env=os.environ | {"GUNICORN_READY_FD": str(writer)},
            pass_fds=[listener.fileno(), writer],
        ),
    ):
        os.close(writer)
        yield ready


def serve(listener: socket.socket, workers: int) -> None:
    """Serve the site until Ctrl-C, as long as this process has something to stop after that."""
    command = _command(listener, workers)
    with (
        started(command, pass_fds=[listener.fileno()]) as process,
        suppress(KeyboardInterrupt),
    ):
        process.wait()


def become_gunicorn(listener: socket.socket, workers: int) -> None:
    """Serve the site in place of this process, so that every signal reaches gunicorn itself."""
    os.chdir(settings.BASE_DIR)
    os.set_inheritable(listener.fileno(), True)
    command = _command(listener, workers)
    os.execv(command[0], command)


def _command(listener: socket.socket, workers: int) -> list[str]:
    return [
        sys.executable,
        *("-m", "gunicorn"),
        *("--config", "python:example.gunicorn_config"),
        *("--bind", f"fd://{listener.fileno()}"),
        *("--workers", str(workers)),
    ]
