"""What importing the package does before Django is configured."""

import os
import subprocess
import sys

import pytest

import django_distlock
from django_distlock import exceptions

SANITY = """
import logging, os, signal, threading, django.dispatch
from django.conf import settings
handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
import django_distlock, django_distlock.signals
assert not settings.configured
assert threading.enumerate() == [threading.main_thread()]
assert handlers == {number: signal.getsignal(number) for number in signal.valid_signals()}
assert not logging.getLogger("django_distlock").handlers
assert "django_distlock.models" not in __import__("sys").modules
from django_distlock.concurrency.background import backgrounds
assert not backgrounds
for name in vars(django_distlock.signals):
    if name.startswith("lock_"):
        assert not getattr(django_distlock.signals, name).receivers
"""

PATCHED = """
import asyncio, asgiref.sync, concurrent.futures, contextvars, threading
watched = [asgiref.sync.AsyncToSync, asgiref.sync.SyncToAsync, asyncio.Task, threading.Thread]
watched += [asgiref.sync, asyncio, concurrent.futures, contextvars, threading]
before = [dict(vars(each)) for each in watched]
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["django_distlock"])
django.setup()
import django_distlock.locks.api, django_distlock.concurrency.callers
changed = [
    (each, name)
    for each, names in zip(watched, before)
    for name, value in names.items()
    if vars(each).get(name) is not value and not name.startswith("_")
]
assert not changed, changed
"""

LOADED = """
import sys
before = {*sys.modules}  # which site-packages may load at the start
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django_distlock"],
    DISTLOCK={"default": {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}},
)
django.setup()
from django_distlock import acquire_lock, distributed_lock, signals
assert acquire_lock("1234collectPayment").release()
distributed_lock("<number>collectPayment")(lambda number: None)(1234)
loaded = {*sys.modules} - before
others = {
    root
    for name in loaded
    if "site-packages" in (getattr(sys.modules[name], "__file__", None) or "")
    and (root := name.partition(".")[0]) not in {"asgiref", "django", "django_distlock", "sqlparse"}
}
assert not others, others
rooms = ["contract", "integrations", "telemetry", "test"]
assert not loaded & {f"django_distlock.{room}" for room in rooms}
assert not signals.lock_acquired.recorders
"""

ELSEWHERE = """
import django, os, sys
from django.conf import settings
{removal}
try:
    {attempt}
except ImportError as error:
    print(error)
"""
APPS = "settings.configure(INSTALLED_APPS=['django_distlock']); django.setup()"


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run the code in a process without settings."""
    environment = {key: value for key, value in os.environ.items() if "DJANGO" not in key}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_import_alone_does_nothing_but_connect_signals() -> None:
    """It needs no settings, starts no thread and writes nothing."""
    done = run(SANITY)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_package_shows_what_users_import_from_it() -> None:
    """In an interactive shell, too: not the modules that it imports itself."""
    assert dir(django_distlock) == sorted(django_distlock.__all__)
    for name in django_distlock.__all__:
        assert getattr(django_distlock, name) is not None
    errors = {name for name, value in vars(exceptions).items() if is_lock_error(value)}
    assert errors - set(django_distlock.__all__) == {"UnencryptedServer"}  # InvalidLockBackend


def is_lock_error(value: object) -> bool:
    """Return whether it is an exception of this package."""
    return isinstance(value, type) and value.__module__ == exceptions.__name__


def test_import_replaces_nothing_of_asgiref_or_asyncio() -> None:
    """None of their functions is wrapped."""
    done = run(PATCHED)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.once
def test_a_lock_loads_no_other_library() -> None:
    """Telemetry and integrations are loaded if the site asks for them, and cost nothing before."""
    done = run(LOADED)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "removal", ["del os.fork, os.register_at_fork", "sys.modules['fcntl'] = None"]
)
@pytest.mark.parametrize(
    "attempt",
    [
        "import django_distlock",
        "import django_distlock.exceptions",
        "from django_distlock.backends.redis import RedisBackend",
        "from django_distlock.management.commands import run_lock_server",
        APPS,
    ],
)
def test_error_on_other_systems_says_that_posix_is_needed(removal: str, attempt: str) -> None:
    """Windows lacks these modules, whichever is imported first."""
    done = run(ELSEWHERE.format(removal=removal, attempt=attempt))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "django_distlock needs a POSIX system, such as Linux, macOS or a BSD. "
        "On Windows, run your site in WSL.\n"
    )
