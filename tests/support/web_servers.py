"""Run tests/app/served.py under real servers, and send it requests."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

from tests.support.children import tied
from tests.support.concurrency import until
from tests.support.paths import ROOT
from tests.support.processes import worker_environment

HOST = "127.0.0.1"
GUNICORN = ("gunicorn", "tests.app.served:wsgi", f"--bind={HOST}:0", "--no-control-socket")
COMMANDS = {
    "sync": (*GUNICORN, "--worker-class=sync"),
    "gthread": (*GUNICORN, "--worker-class=gthread", "--threads=4"),
    "uvicorn": (
        "uvicorn",
        "tests.app.served:asgi",
        f"--host={HOST}",
        "--port=0",
        "--no-access-log",
        # On a busy machine a new worker may take longer than 5 seconds, and then no reload happens.
        "--timeout-worker-healthcheck=60",
    ),
}
CLIENTS = 8
DROPPED = "dropped"
VIEWS = {"uvicorn": "/count-async/"}
"""Which view counts, if it isn't the sync one."""


class Site:
    """A server with two worker processes; its output is in a file."""

    def __init__(self, server: str, directory: Path, *options: str, **environment: str) -> None:
        self.log = directory / "log"
        self.counter = directory / "counter"
        self.counter.write_text("0")
        self.view = VIEWS.get(server, "/count/")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                tied([sys.executable, "-m", *COMMANDS[server], "--workers=2", *options]),
                cwd=ROOT,
                env=worker_environment()
                | {
                    "DISTLOCK_TEST_URLCONF": "tests.app.served",
                    "DISTLOCK_TEST_COUNTER": str(self.counter),
                }
                | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.port = 0

    def __enter__(self) -> Self:
        until(self._listens)
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.process.terminate()
            assert self.process.wait(60) == 0, self.output()
        finally:
            with suppress(ProcessLookupError):  # as expected: no process is left
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _listens(self) -> bool:
        """Read the server's port from the output, and try it."""
        assert self.process.poll() is None, self.output()
        if found := re.search(rf"http://{HOST}:(\d+) ", self.output()):
            self.port = int(found[1])
            # Uvicorn takes it before its workers listen.
            with suppress(ConnectionRefusedError), socket.create_connection((HOST, self.port)):
                return True
        return False

    def output(self) -> str:
        """Return what the server has printed."""
        return self.log.read_text()

    def get(self, path: str) -> Any:
        """Ask for some JSON."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        connection.request("GET", path, headers={"Connection": "close"})
        with connection.getresponse() as answer:
            assert answer.status == 200, self.output()
            return json.load(answer)

    def load(self, path: str, requests: int, **headers: str) -> Counter[int | str]:
        """Send so many requests by several clients at once, and count the answers by status."""
        return self._load(path, requests, None, headers)

    def load_and_reload(self, path: str, requests: int) -> Counter[int | str]:
        """Do that over keep-alive connections, while the server reloads.

        A worker that ends may close such a connection while a request is on its way to it. That is
        counted as "dropped" and sent again, as browsers and proxies do.
        """
        return self._load(path, requests, requests // 3, {})

    def _load(
        self, path: str, requests: int, reload_at: int | None, headers: dict[str, str]
    ) -> Counter[int | str]:
        numbers = iter(range(requests))

        def visit() -> Counter[int | str]:
            seen: Counter[int | str] = Counter()
            connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
            for number in numbers:
                if number == reload_at:
                    self.process.send_signal(signal.SIGHUP)
                status: int | str = DROPPED
                while status == DROPPED:
                    status = _status(connection, path, headers)
                    seen[status] += 1
            connection.close()
            return seen

        with ThreadPoolExecutor(CLIENTS) as clients:
            visits = [clients.submit(visit) for _ in range(CLIENTS)]
            return sum((each.result() for each in visits), Counter[int | str]())

    def states(self) -> dict[int, dict[str, Any]]:
        """Return each worker's state, by its process id."""
        states: dict[int, dict[str, Any]] = {}

        def alive() -> dict[int, dict[str, Any]]:
            return {pid: state for pid, state in states.items() if psutil.pid_exists(pid)}

        def known_by_both() -> bool:
            state = self.get("/state/")
            states[state["pid"]] = state
            return len(alive()) == 2

        until(known_by_both)
        return alive()

    def is_idle(self) -> bool:
        """Return whether no worker has leases to renew, or a renewing thread."""
        return not any(
            state["leases"] or any("django_distlock" in name for name in state["threads"])
            for state in self.states().values()
        )


def _status(
    connection: http.client.HTTPConnection, path: str, headers: dict[str, str]
) -> int | str:
    """Return the answer's status, or that the connection was closed without one."""
    kept_alive = connection.sock is not None
    try:
        connection.request("GET", path, headers=headers)
        with connection.getresponse() as answer:
            answer.read()
            return answer.status
    except ConnectionError:
        assert kept_alive
        connection.close()
        return DROPPED
