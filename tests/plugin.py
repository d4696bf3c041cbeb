"""A pytest plugin: starts the servers that the tests need, and is loud about missing ones.

A plugin (-p tests.plugin) and not a part of conftest.py, since the servers' addresses must be
known before pytest-django reads the settings.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import lock_servers, redis_servers, servers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

INSTALL = "install with: python3 dev.py test --install-servers"
# What a test can need: its name for people, and how to get it.
NEEDS = {
    "postgresql": ("PostgreSQL", INSTALL),
    "pgbouncer": ("PgBouncer", INSTALL),
    "mariadb": ("MariaDB", INSTALL),
    "redis": ("Redis", INSTALL),
    "redis_cluster": ("Redis Cluster", INSTALL),
    "memcached": ("Memcached", INSTALL),
    "pylibmc": ("Memcached by pylibmc", INSTALL),
    "lock_server": ("the lock server", INSTALL),
    "lock_server_unix": ("the lock server at a unix socket", INSTALL),
    "lock_server_tls": ("the lock server by TLS", INSTALL),
    "chromium": ("the admin in a browser (Chromium)", INSTALL),
    "example": ("the example", "run the tests through tox: python3 dev.py test"),
    "wheelhouse": ("packaging", "run the tests through tox: python3 dev.py test"),
}
STARTERS: dict[str, Callable[[], servers.Server | redis_servers.Cluster]] = {
    "postgresql": servers.start_postgresql,
    "mariadb": servers.start_mariadb,
    "redis": servers.start_redis,
    "redis_cluster": redis_servers.start_redis_cluster,
    # One for each of its clients: a cache for locks shares its server with no other.
    "memcached": servers.start_memcached,
    "pylibmc": servers.start_memcached,
    "lock_server": lock_servers.start_lock_server,
    "lock_server_unix": partial(lock_servers.start_lock_server, unix=True),
    "lock_server_tls": partial(lock_servers.start_lock_server, tls=True),
}


@dataclass
class Surroundings:
    """What this run has to work with. Only the process that made it may close it."""

    missing: dict[str, str]
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="distlock-")))
    servers: dict[str, servers.Server | redis_servers.Cluster] = field(default_factory=dict)
    creator: int = field(default_factory=os.getpid)

    def start(self) -> None:
        """Start the servers, side by side, and export where they are."""
        os.environ["DISTLOCK_TEST_SQLITE"] = str(self.directory / "default.sqlite3")
        with ThreadPoolExecutor() as threads:
            starting = {
                name: threads.submit(start)
                for name, start in STARTERS.items()
                if name not in self.missing
            }
        failures = []
        for name, future in starting.items():
            if error := future.exception():
                failures.append(error)
            else:
                self.servers[name] = future.result()
        if failures:
            raise failures[0]
        self._export()

    def _export(self) -> None:
        for name, server in self.servers.items():
            os.environ[f"DISTLOCK_TEST_{name.upper()}"] = json.dumps(server.database_settings)

    def close(self) -> None:
        """Stop the servers and delete what they wrote."""
        if os.getpid() != self.creator:
            return
        while self.servers:
            _, server = self.servers.popitem()
            server.remove()
        shutil.rmtree(self.directory, ignore_errors=True)


SURROUNDINGS = pytest.StashKey[Surroundings]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-servers", action="store_true", help="start no servers; skip what needs them"
    )


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    options = early_config.known_args_namespace
    if not (options.help or options.version or options.collectonly):
        missing = _missing(no_servers=options.no_servers)
        _refuse_gaps(missing)
        _start(early_config, Surroundings(missing))
    yield


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Who is started in the background ignores it, and so would all that the tests start.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers", f"needs(*names): skip where one of {', '.join(NEEDS)} is missing"
    )
    config.addinivalue_line(
        "markers", "slow: takes long, and hardly depends on the version of Python or Django"
    )
    if _is_partial(config) and (measurement := config.pluginmanager.get_plugin("_cov")):
        measurement.options.cov_fail_under = 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    surroundings = config.stash.get(SURROUNDINGS, None)
    for item in items:
        for name in _needs(item):
            if surroundings and name in surroundings.missing:
                item.add_marker(pytest.mark.skip(f"{name}: {surroundings.missing[name]}"))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Let a run end well that has nothing to do since all that was asked for is slow."""
    leaves_out_slow = session.config.getoption("markexpr") == "not slow"
    if leaves_out_slow and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None]:
    yield
    surroundings = config.stash.get(SURROUNDINGS, None)
    if surroundings and surroundings.missing:
        terminalreporter.section("NOT TESTED", red=True, bold=True)
        for line in _describe(surroundings.missing):
            terminalreporter.line(f"NOT TESTED: {line}", red=True, bold=True)


def _start(config: pytest.Config, surroundings: Surroundings) -> None:
    config.stash[SURROUNDINGS] = surroundings
    # Twice: a run that ends before it is configured never gets to the clean-up.
    config.add_cleanup(surroundings.close)
    atexit.register(surroundings.close)
    surroundings.start()


def _missing(*, no_servers: bool) -> dict[str, str]:
    missing = servers.missing()
    if no_servers:
        missing |= dict.fromkeys(STARTERS, "--no-servers")
    if not os.environ.get("DISTLOCK_WHEELHOUSE"):
        missing["wheelhouse"] = "DISTLOCK_WHEELHOUSE is not set"
    return missing


def _refuse_gaps(missing: dict[str, str]) -> None:
    """Stop a run on CI that would leave something out."""
    if missing and os.environ.get("CI", "").lower() not in ("", "0", "false"):
        gaps = "\n".join(_describe(missing))
        raise pytest.UsageError(f"CI is set, so everything has to be tested, but:\n{gaps}")


def _describe(missing: dict[str, str]) -> list[str]:
    return [f"{NEEDS[name][0]} ({reason}) - {NEEDS[name][1]}" for name, reason in missing.items()]


def _needs(item: pytest.Item) -> list[str]:
    names = [name for marker in item.iter_markers("needs") for name in marker.args]
    for name in names:
        if name not in NEEDS:
            raise pytest.UsageError(f"{item.nodeid} needs {name!r}, not one of {', '.join(NEEDS)}")
    return names


def _is_partial(config: pytest.Config) -> bool:
    """Tell whether something is missing or deselected, so that lines may well stay unreached."""
    surroundings = config.stash.get(SURROUNDINGS, None)
    selections = ("file_or_dir", "keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf")
    return bool(
        not surroundings
        or surroundings.missing
        or any(config.getoption(selection) for selection in selections)
    )
