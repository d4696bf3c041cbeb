"""Start servers of our own: empty, on a free port, in a temporary directory.

The benchmarks use it too, with `durable=True`: as a server for real data would be set.
"""

from __future__ import annotations

import importlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import psutil
from mirakuru import Executor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = "127.0.0.1"
DATABASE = "distlock"
TIMEOUT = 60.0
# Debian keeps servers out of an ordinary user's PATH.
SERVER_PATHS = ("/usr/lib/postgresql/*/bin", "/usr/sbin", "/usr/local/sbin")
# Below the range that outgoing connections take their ports from: a stopped server finds its
# port free when it comes back.
PORTS = range(20_000, 30_000)
# What example_project imports; the distributions have the same names.
EXAMPLE_MODULES = ("gunicorn", "httpx", "rich", "whitenoise")


class DatabaseExecutor(Executor):
    """Run a database server; it has started once `connect` succeeds."""

    def __init__(self, command: list[str], connect: Callable[[], Any], **options: Any) -> None:
        self._connect = connect
        self._creator = os.getpid()
        super().__init__(command, timeout=TIMEOUT, sleep=0.05, **options)

    def __del__(self) -> None:
        # A forked child has a copy of this object, but the server is not the child's to stop.
        if os.getpid() == self._creator:
            super().__del__()

    def pre_start_check(self) -> bool:
        return self.after_start_check()

    def after_start_check(self) -> bool:
        try:
            self._connect().close()
        except Exception:  # noqa: BLE001 - each driver has its own, and all mean "not yet"
            return False
        return True


@dataclass
class Server:
    """A running server, its data, and where it is: as Django's DATABASES have that."""

    executor: DatabaseExecutor
    directory: Path
    log: IO[bytes]
    database_settings: dict[str, Any]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def start(self) -> None:
        """Start the server; raise RuntimeError with its log if it won't."""
        try:
            self.executor.start()
        except Exception as error:
            tail = "\n".join(self._log_lines()[-20:])
            raise RuntimeError(f"{self.executor.command} did not start: {error}\n{tail}") from error

    def stop(self) -> None:
        """Stop the server in good order; it keeps its data."""
        self.executor.stop(expected_returncode=0)

    def kill(self) -> None:
        """Kill the server and every process of it, as a power failure would."""
        processes = self._processes()
        self.executor.kill()
        for process in processes:
            _kill(process)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let nothing of the server run in the block: it keeps connections and answers nothing."""
        processes = self._processes()
        for process in processes:
            _suspend(process)
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):  # killed meanwhile
                    process.resume()

    def restart(self) -> None:
        """Stop the server, unless it is stopped or killed, and start it on the same port."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """Stop the server and delete its data."""
        try:
            self.stop()
        finally:
            self.log.close()
            shutil.rmtree(self.directory)

    def _processes(self) -> list[psutil.Process]:
        if self.executor.process is None:
            return []
        main = psutil.Process(self.executor.process.pid)
        return [main, *main.children(recursive=True)]

    def _log_lines(self) -> list[str]:
        return Path(self.log.name).read_text(errors="replace").splitlines()


@dataclass(frozen=True)
class Home:
    """Where a server is about to live: a directory, a port, and an account that isn't root."""

    directory: Path
    port: int
    account: dict[str, Any]

    @classmethod
    def create(cls, kind: str, *accounts: str) -> Home:
        """Make a home; root hands it to the first of the `accounts` that exists."""
        directory = Path(tempfile.mkdtemp(prefix=f"distlock-{kind}-"))
        account: dict[str, Any] = {}
        if os.geteuid() == 0:
            entry = _first_account(accounts)
            os.chown(directory, entry.pw_uid, entry.pw_gid)
            account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        return cls(directory, free_port(), account)

    @property
    def data(self) -> str:
        return str(self.directory / "data")

    def run(self, *command: str) -> None:
        """Run a command that prepares the server; raise RuntimeError if it fails."""
        done = subprocess.run(
            command, cwd=self.directory, capture_output=True, text=True, check=False, **self.account
        )
        if done.returncode:
            shutil.rmtree(self.directory)
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")

    def serve(
        self,
        command: list[str],
        *,
        connect: Callable[[], Any],
        database_settings: dict[str, Any],
        stop_signal: int,
        has_databases: bool = True,
    ) -> Server:
        """Start the server and, if it is one that has databases, create ours in it."""
        log = (self.directory / "log").open("ab")
        executor = DatabaseExecutor(
            command,
            connect,
            cwd=str(self.directory),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            stop_signal=stop_signal,
            popen_kwargs=self.account,
        )
        place = {"NAME": DATABASE, "HOST": HOST, "PORT": str(self.port)}
        server = Server(executor, self.directory, log, database_settings | place)
        try:
            server.start()
            if has_databases:
                _create_database(connect())
        except BaseException:
            server.remove()
            raise
        return server


def start_postgresql(*, durable: bool = False) -> Server:
    """Start a PostgreSQL server that asks nobody on this machine for a password."""
    home = Home.create("postgresql", "postgres", "nobody")
    home.run(
        _find("initdb"),
        f"--pgdata={home.data}",
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
    )
    settings = {
        "listen_addresses": HOST,
        "port": home.port,
        "unix_socket_directories": "",
        "max_connections": 200,
        "timezone": "Asia/Kathmandu",  # so that whatever relies on UTC shows
    }
    if not durable:
        # Leaves synchronous_commit alone: the tests look at it.
        settings |= {"fsync": "off", "full_page_writes": "off"}

    def connect() -> Any:
        import psycopg

        return psycopg.connect(
            host=HOST, port=home.port, user="postgres", dbname="postgres", autocommit=True
        )

    return home.serve(
        [_find("postgres"), "-D", home.data, *_options("--", settings)],
        connect=connect,
        database_settings={"ENGINE": "django.db.backends.postgresql", "USER": "postgres"},
        stop_signal=signal.SIGINT,  # SIGTERM would wait for the clients to leave
    )


PGBOUNCER = """
[databases]
* = host={HOST} port={PORT}

[pgbouncer]
listen_addr = {HOST}
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
default_pool_size = 20
max_client_conn = 200
auth_type = trust
auth_file = users
"""


def start_pgbouncer(behind: dict[str, Any]) -> Server:
    """Start a pooler in transaction mode in front of the PostgreSQL of these Django settings."""
    home = Home.create("pgbouncer", "postgres", "nobody")
    (home.directory / "pgbouncer.ini").write_text(PGBOUNCER.format(**behind, port=home.port))
    (home.directory / "users").write_text('"{USER}" ""\n'.format(**behind))

    def connect() -> Any:
        import psycopg

        return psycopg.connect(
            host=HOST, port=home.port, user=behind["USER"], dbname=behind["NAME"]
        )

    return home.serve(
        [_find("pgbouncer"), "pgbouncer.ini"],
        connect=connect,
        # What Django asks for behind a pooler in this mode.
        database_settings=behind | {"DISABLE_SERVER_SIDE_CURSORS": True},
        stop_signal=signal.SIGINT,  # SIGTERM would end with an error
        has_databases=False,
    )


def start_mariadb(*, durable: bool = False) -> Server:
    """Start a MariaDB server that asks nobody on this machine for a password."""
    home = Home.create("mariadb", "mysql", "nobody")
    home.run(
        _find("mariadb-install-db"),
        "--no-defaults",
        f"--datadir={home.data}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
    )
    settings = {
        "datadir": home.data,
        "bind-address": HOST,
        "port": home.port,
        "socket": "mariadb.sock",  # both relative to datadir
        "pid-file": "mariadb.pid",
        "max-connections": 200,
        "skip-name-resolve": "ON",
        "character-set-server": "utf8mb4",
        "collation-server": "utf8mb4_unicode_ci",
        "default-time-zone": "+05:45",  # so that whatever relies on UTC shows
    }
    if not durable:
        settings |= {"innodb-flush-log-at-trx-commit": 0, "innodb-doublewrite": "OFF"}

    def connect() -> Any:
        import MySQLdb

        return MySQLdb.connect(host=HOST, port=home.port, user="root")

    return home.serve(
        [_find("mariadbd"), "--no-defaults", *_options("--", settings)],
        connect=connect,
        database_settings={"ENGINE": "django.db.backends.mysql", "USER": "root"},
        stop_signal=signal.SIGTERM,
    )


def start_redis(*directives: str, arguments: tuple[str, ...] = ()) -> Server:
    """Start a Redis server that keeps all in memory, with these lines in its configuration too.

    Django has no engine for it; tests/redis_servers.py has more kinds of them.
    """
    home = Home.create("redis", "redis", "nobody")
    basic = (
        f"bind {HOST}",
        f"port {home.port}",
        'save ""',
        "repl-diskless-sync no",  # it waits for more replicas
    )
    configuration = home.directory / "redis.conf"
    configuration.write_text("\n".join([*basic, *directives, ""]))
    if home.account:  # a sentinel writes to it
        os.chown(configuration, home.account["user"], home.account["group"])

    def connect() -> Any:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        client = redis.Redis(host=HOST, port=home.port, retry=Retry(NoBackoff(), 0))
        client.ping()
        return client

    return home.serve(
        [_find("redis-server"), "redis.conf", *arguments],
        connect=connect,
        database_settings={},
        stop_signal=signal.SIGTERM,
        has_databases=False,
    )


def start_memcached() -> Server:
    """Start a Memcached server. Django has no engine for it."""
    home = Home.create("memcached", "memcache", "nobody")

    def connect() -> Any:
        connection = socket.create_connection((HOST, home.port), 1)
        connection.sendall(b"version\r\n")
        if not connection.recv(64).startswith(b"VERSION"):
            raise RuntimeError("it doesn't answer")
        return connection

    return home.serve(
        [_find("memcached"), f"--listen={HOST}", f"--port={home.port}", "--udp-port=0"],
        connect=connect,
        database_settings={},
        stop_signal=signal.SIGTERM,
        has_databases=False,
    )


def missing() -> dict[str, str]:
    """Say what is not installed on this machine, and why that matters."""
    reasons = {
        "postgresql": _lacks(("initdb", "postgres"), "psycopg", "psycopg"),
        "pgbouncer": _lacks(("pgbouncer",), "psycopg", "psycopg"),
        "mariadb": _lacks(("mariadb-install-db", "mariadbd"), "MySQLdb", "mysqlclient"),
        "redis": _lacks(("redis-server",), "redis", "redis"),
        "redis_cluster": _lacks(("redis-server",), "redis", "redis"),
        "memcached": _lacks(("memcached",), "pymemcache", "pymemcache"),
        "pylibmc": _lacks(("memcached",), "pylibmc", "pylibmc"),
        "chromium": _lacks(() if find_chromium() else ("chromium",), "playwright", "playwright"),
        "example": next(filter(None, (_lacks((), name, name) for name in EXAMPLE_MODULES)), None),
    }
    return {name: reason for name, reason in reasons.items() if reason}


def find_chromium() -> str | None:
    """Return the path of the browser."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def _lacks(binaries: tuple[str, ...], module: str, distribution: str) -> str | None:
    for binary in binaries:
        if not _which(binary):
            return f"{binary} is not installed"
    try:
        importlib.import_module(module)
    except ImportError:
        return f"{distribution} is not installed"
    return None


def _which(binary: str) -> str | None:
    directories = [str(path) for pattern in SERVER_PATHS for path in Path("/").glob(pattern[1:])]
    return shutil.which(binary) or shutil.which(binary, path=os.pathsep.join(directories))


def _find(binary: str) -> str:
    path = _which(binary)
    if path is None:
        raise RuntimeError(f"{binary} is not installed")
    return path


def _options(prefix: str, settings: dict[str, Any]) -> list[str]:
    return [f"{prefix}{name}={value}" for name, value in settings.items()]


def _first_account(names: tuple[str, ...]) -> pwd.struct_passwd:
    accounts = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(accounts[name] for name in names if name in accounts)


def _create_database(connection: Any) -> None:
    connection.cursor().execute(f"CREATE DATABASE {DATABASE}")
    connection.close()


def free_port() -> int:
    """Return a port that nothing listens at."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


def _suspend(process: psutil.Process) -> None:
    """Stop it, and return when it has stopped: until then it may still answer."""
    process.suspend()
    deadline = time.monotonic() + TIMEOUT
    while process.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _kill(process: psutil.Process) -> None:
    """Kill a process and wait until it runs no more, whether or not its new parent reaps it."""
    try:
        process.kill()
        while process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
    except psutil.NoSuchProcess:
        pass
