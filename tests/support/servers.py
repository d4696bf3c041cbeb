"""Servers of our own: empty, at a port of their own, in a temporary directory.

Other modules here run each kind. The benchmarks use them too, with `durable=True`, configured as
for real data.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import psutil
from mirakuru import Executor

from tests.support.children import tied
from tests.support.ports import HOST, ReservedPort

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator

TIMEOUT = 60.0


@dataclass(frozen=True)
class Home:
    """Where a server lives: a directory, a port, and an account that isn't root."""

    directory: Path
    reserved: ReservedPort
    account: dict[str, Any]

    @classmethod
    def create(cls, kind: str, *accounts: str) -> Self:
        """Make a home; root hands it to the first of `accounts` that exists."""
        directory = Path(tempfile.mkdtemp(prefix=f"distlock-{kind}-"))
        account: dict[str, Any] = {}
        if accounts and os.geteuid() == 0:
            entry = _first_account(accounts)
            os.chown(directory, entry.pw_uid, entry.pw_gid)
            account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        return cls(directory, ReservedPort(), account)

    @property
    def port(self) -> int:
        return self.reserved.number

    @property
    def data(self) -> str:
        return str(self.directory / "data")

    def run(self, *command: str) -> None:
        """Run a command that prepares the server; raise RuntimeError if it fails."""
        done = subprocess.run(
            command, cwd=self.directory, capture_output=True, text=True, check=False, **self.account
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")

    def write(self, name: str, text: str) -> Path:
        """Write a file that the server's account may rewrite."""
        path = self.directory / name
        path.write_text(text)
        if self.account:
            os.chown(path, self.account["user"], self.account["group"])
        return path

    def remove(self) -> None:
        """Delete all files, and free the port."""
        shutil.rmtree(self.directory)
        self.reserved.release()


class ServerExecutor(Executor):
    """Run a server; it has started once `connect` succeeds."""

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


def _do_nothing() -> None:
    """Prepare nothing."""


@dataclass
class Server:
    """A server, its data, and its address, which is known before it runs."""

    home: Home
    command: list[str]
    connect: Callable[[], Any]
    stop_signal: signal.Signals
    options: dict[str, Any] = field(default_factory=dict)
    """What is to be known of it beside the host and port."""
    prepare: Callable[[], None] = _do_nothing
    """What is done before the first start, and after it."""
    complete: Callable[[], None] = _do_nothing
    log: IO[bytes] = field(init=False)
    executor: ServerExecutor = field(init=False)

    def __post_init__(self) -> None:
        self.log = (self.home.directory / "log").open("ab")
        self.executor = ServerExecutor(
            tied(self.command, self.stop_signal),
            self.connect,
            cwd=str(self.home.directory),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            stop_signal=self.stop_signal,
            popen_kwargs=self.home.account,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    @property
    def settings(self) -> dict[str, Any]:
        """Return its address; a database's as in Django's DATABASES."""
        return {**self.options, "HOST": HOST, "PORT": str(self.port)}

    @property
    def port(self) -> int:
        return self.home.port

    @property
    def directory(self) -> Path:
        return self.home.directory

    @property
    def is_running(self) -> bool:
        return self.executor.running()

    def begin(self) -> Self:
        """Prepare the server, and start it for the first time; remove it if that fails."""
        try:
            self.prepare()
            self.start()
            self.complete()
        except BaseException:
            self.remove()
            raise
        return self

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
        """Stop all of the server's processes in the block: connections stay, without answers."""
        processes = self._processes()
        for process in processes:
            _suspend(process)
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):  # already killed
                    process.resume()

    def restart(self) -> None:
        """Stop the server, unless it is stopped or killed, and start it on the same port."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """Stop the server, if it runs, and delete its data."""
        try:
            self.stop()
        finally:
            self.log.close()
            self.home.remove()

    def _processes(self) -> list[psutil.Process]:
        if self.executor.process is None:
            return []
        main = psutil.Process(self.executor.process.pid)
        return [main, *main.children(recursive=True)]

    def _log_lines(self) -> list[str]:
        return Path(self.log.name).read_text(errors="replace").splitlines()


def arguments(settings: dict[str, Any]) -> list[str]:
    """Return a server's settings as its command line has them."""
    return [f"--{name}={value}" for name, value in settings.items()]


def _first_account(names: tuple[str, ...]) -> pwd.struct_passwd:
    accounts = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(accounts[name] for name in names if name in accounts)


def _suspend(process: psutil.Process) -> None:
    """Stop it, and wait until it has stopped: before that it may still answer."""
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
