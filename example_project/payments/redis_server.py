"""A Redis server for as long as a command runs, or an existing one."""

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from django.core.management import CommandError
from redis import Redis, RedisError

from payments.processes import keeping_locks

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
    """Run a server in memory until the block ends. Yield its URL."""
    program = shutil.which("redis-server")
    if program is None:
        raise CommandError("There is no redis-server: apt install redis-server, or set REDIS_URL.")
    port = _free_port()
    url = f"redis://{HOST}:{port}"

    def answers(pid: int) -> bool:
        """Return whether this process answers, and not another one that has taken the port."""
        try:
            with Redis.from_url(url, socket_timeout=TIMEOUT) as client:
                answered_by: int = client.info("server")["process_id"]
        except RedisError:
            return False
        return answered_by == pid

    with TemporaryDirectory(prefix="example-redis-") as directory:
        command = [
            program,
            *("--bind", HOST),
            *("--port", str(port)),
            *("--save", ""),
            *("--dir", directory),
        ]
        with keeping_locks("redis-server", command, Path(directory, "log"), answers):
            yield url


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
