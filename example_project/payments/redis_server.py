"""A Redis server for as long as a command runs, or the one that there is."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from django.core.management import CommandError
from redis import Redis, RedisError

from payments.processes import started

HOST = "127.0.0.1"
TIMEOUT = 10  # seconds


def check(url: str) -> None:
    """Raise CommandError, in one line, unless a Redis server answers there."""
    try:
        with Redis.from_url(url, socket_connect_timeout=TIMEOUT, socket_timeout=TIMEOUT) as client:
            client.ping()
    except (RedisError, ValueError) as error:
        raise CommandError(f"REDIS_URL leads to no Redis that answers: {error}") from error


@contextmanager
def running() -> Iterator[str]:
    """Run a server that keeps all in memory until the block ends. Yield its URL."""
    program = shutil.which("redis-server")
    if program is None:
        raise CommandError("There is no redis-server: apt install redis-server, or set REDIS_URL.")
    port = _free_port()
    with TemporaryDirectory(prefix="example-redis-") as directory:
        log = Path(directory, "log")
        command = [
            program,
            *("--bind", HOST),
            *("--port", str(port)),
            *("--save", ""),
            *("--dir", directory),
            *("--logfile", str(log)),
        ]
        # In a session of its own, Ctrl-C doesn't reach it before those who have locks in it.
        with started(command, stdout=subprocess.DEVNULL, start_new_session=True) as process:
            url = f"redis://{HOST}:{port}"
            _wait_until_ready(process, url, log)
            yield url


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return when this process answers there, and not one that has taken the port before it."""
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        if _answers(process.pid, url):
            return
        time.sleep(0.02)
    told = log.read_text(errors="replace") if log.exists() else ""
    raise CommandError(f"redis-server did not start.\n{told}")


def _answers(pid: int, url: str) -> bool:
    try:
        with Redis.from_url(url, socket_timeout=TIMEOUT) as client:
            answers: bool = client.info("server")["process_id"] == pid
            return answers
    except RedisError:
        return False
