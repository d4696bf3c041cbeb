"""A pytest plugin: starts the servers that a test needs, and is loud about missing ones.

A plugin (-p tests.support.plugin) and not a part of conftest.py, since the servers' addresses must
be known before pytest-django reads the settings. Each process that runs tests has servers of its
own; each is started for the first test that needs it.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import tempfile
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pytest_django.plugin import blocking_manager_key

from tests.support.installed import missing as not_installed
from tests.support.lock_servers import lock_server
from tests.support.mariadb import mariadb
from tests.support.memcached import memcached
from tests.support.paths import ROOT
from tests.support.postgresql import postgresql
from tests.support.redis_servers import Cluster, redis

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from tests.support.servers import Server

INSTALL = "install with: python3 dev.py test --install-servers"
# What a test can need: its display name, and how to start it.
NEEDS = {
    "postgresql": ("PostgreSQL", INSTALL),
    "pgbouncer": ("PgBouncer", INSTALL),
    "mariadb": ("MariaDB", INSTALL),
    "redis": ("Redis", INSTALL),
    "redis_cluster": ("Redis Cluster", INSTALL),
    "memcached": ("Memcached", INSTALL),
    "lock_server": ("the lock server", INSTALL),
    "lock_server_unix": ("the lock server at a unix socket", INSTALL),
    "lock_server_tls": ("the lock server by TLS", INSTALL),
    "chromium": ("the admin in a browser (Chromium)", INSTALL),
    "example": ("the example", "run the tests through tox: python3 dev.py test"),
    "eventlet": ("eventlet", "run the tests through tox: python3 dev.py test"),
    "gevent": ("gevent", "run the tests through tox: python3 dev.py test"),
    "spin": ("the checked model (Spin)", INSTALL),
    "gettext": ("the catalogues of translations (gettext)", INSTALL),
    "wheelhouse": ("packaging", "run the tests through tox: python3 dev.py test"),
}
KINDS: dict[str, Callable[[], Server | Cluster]] = {
    "postgresql": postgresql,
    "mariadb": mariadb,
    "redis": redis,
    "redis_cluster": Cluster.create,
    "memcached": memcached,
    "lock_server": lock_server,
    "lock_server_unix": partial(lock_server, unix=True),
    "lock_server_tls": partial(lock_server, tls=True),
}
DATABASES = {"postgresql", "mariadb"}
FILES = ["default", "locks"]
"""The databases that need no server: SQLite's."""
ONCE = {
    ROOT / "tests" / folder
    for folder in (
        *("backends/memcached", "backends/memory", "backends/redis", "backends/server"),
        *(
            "benchmarks",
            "documentation",
            "events",
            "faults",
            "integrations",
            "server",
            "support",
            "telemetry",
        ),
        *("test_kit", "with_lock"),
    )
}
"""The folders of what hardly depends on the version of Python or Django."""
WORKERS_PER_CORE = 3
"""Tests wait for most of their time."""


@dataclass
class Surroundings:
    """The servers and files of this process. Only the process that made them may close them."""

    missing: dict[str, str]
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="distlock-")))
    servers: dict[str, Server | Cluster] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    creator: int = field(default_factory=os.getpid)

    def settle(self) -> None:
        """Choose each server's address, and export it."""
        os.environ["DISTLOCK_TEST_SQLITE"] = str(self.directory / "default.sqlite3")
        for name, create in KINDS.items():
            if name not in self.missing:
                self.servers[name] = create()
                variable = f"DISTLOCK_TEST_{name.upper()}"
                os.environ[variable] = json.dumps(self.servers[name].settings)

    def start(self, names: Iterable[str]) -> list[str]:
        """Start those of these servers that don't run yet; return which."""
        starting = [name for name in names if name in self.servers and name not in self.running]
        for name in starting:
            self.running.add(name)
            self.servers[name].begin()
        return starting

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
        surroundings = Surroundings(missing)
        early_config.stash[SURROUNDINGS] = surroundings
        # Twice: a run that ends before it is configured never reaches the clean-up.
        early_config.add_cleanup(surroundings.close)
        atexit.register(surroundings.close)
        surroundings.settle()
    yield


def pytest_configure(config: pytest.Config) -> None:
    # Background jobs of a shell ignore these, and so would the processes that they start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    config.addinivalue_line(
        "markers", f"needs(*names): skip where one of {', '.join(NEEDS)} is missing"
    )
    config.addinivalue_line(
        "markers", "once: hardly depends on the version of Python or Django; run on the newest only"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run a few chosen tests in this process: it is faster than starting others."""
    paths = config.option.file_or_dir
    is_small = len(paths) == 1 and not Path(paths[0]).is_dir()
    if is_small or config.option.keyword:
        return 0
    return WORKERS_PER_CORE * len(os.sched_getaffinity(0))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    surroundings = config.stash.get(SURROUNDINGS, None)
    for item in items:
        needs = _needs(item)
        for name in needs:
            if surroundings and name in surroundings.missing:
                item.add_marker(pytest.mark.skip(f"{name}: {surroundings.missing[name]}"))
        marker = item.get_closest_marker("django_db")
        if marker and marker.kwargs.get("databases") == "__all__":
            # Only what the test needs: the servers of other databases may not run.
            databases = FILES + [name for name in needs if name in DATABASES]
            options = {**marker.kwargs, "databases": databases}
            item.add_marker(pytest.mark.django_db(**options), append=False)
        if runs_once(item.path):
            item.add_marker("once")


@cache
def runs_once(path: Path) -> bool:
    """Return whether a module is in a folder whose tests run once."""
    return not ONCE.isdisjoint(path.parents)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Don't import what is left out: it would take longer than it takes to run the rest."""
    leaves_out = config.option.markexpr == "not once" and not config.option.file_or_dir
    return True if leaves_out and collection_path in ONCE else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    started = item.config.stash[SURROUNDINGS].start(_needs(item))
    create_databases(item.config, [name for name in started if name in DATABASES])


def create_databases(config: pytest.Config, aliases: list[str]) -> None:
    """Create the databases of the tests, with all tables."""
    from django.db import connections

    with config.stash[blocking_manager_key].unblock():
        for alias in aliases:
            connections[alias].creation.create_test_db(verbosity=0, autoclobber=True)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """End a run successfully if all of the requested tests are left out as `once`."""
    leaves_out = session.config.getoption("markexpr") == "not once"
    if leaves_out and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
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


def _missing(*, no_servers: bool) -> dict[str, str]:
    missing = not_installed()
    if no_servers:
        missing |= dict.fromkeys(KINDS, "--no-servers")
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
