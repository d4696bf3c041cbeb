"""A process that ends releases its leases, and logs that: they would outlast it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from django_distlock import acquire_lock
from django_distlock.leases.process_exit import LONGEST
from tests.support.children import tied
from tests.support.databases import committed
from tests.support.holders import acquire
from tests.support.paths import ROOT
from tests.support.processes import worker_environment

if TYPE_CHECKING:
    from tests.support.servers import Server

pytestmark = committed

STORES = ["default"] + [
    pytest.param(name, marks=pytest.mark.needs(name))
    for name in ("postgresql", "mariadb", "redis", "lock_server", "memcached")
]

BEGINNING = """
import asyncio, os, signal, sys, threading
import django
from django.conf import settings
ALIAS = sys.argv[1]
settings.DISTLOCK[ALIAS]["OPTIONS"] |= {"store_timeout": float(sys.argv[2])}
django.setup()
from django_distlock import *
name = {"backend": ALIAS, "ttl": 3600}
"""
SAID = "The lease on '1234collectPayment' was not released by a process, and ended with it"
TRACEBACK = "Traceback (most recent call last)"


def begin(
    alias: str, program: str, *, store_timeout: float = 30, **environment: str
) -> subprocess.Popen[str]:
    """Start a process that runs this program."""
    return subprocess.Popen(
        tied([sys.executable, "-c", BEGINNING + program, alias, str(store_timeout)]),
        env=worker_environment() | environment,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(alias: str, program: str) -> tuple[int, str]:
    """Return its exit status and its output."""
    process = begin(alias, program)
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def is_free(alias: str, semaphore: str = "1234collectPayment") -> bool:
    """Return whether the lock is free."""
    lease = acquire_lock(semaphore, backend=alias)
    return lease is not None and lease.release()


@pytest.mark.parametrize("alias", STORES)
def test_leases_are_released_when_the_process_ends(alias: str) -> None:
    """In every store. The log line is shown unless logging is configured otherwise."""
    status, said = ended(alias, "acquire_lock('1234collectPayment', **name)")
    assert is_free(alias)
    assert (status, said.splitlines()) == (
        0,
        [f"{SAID}: release it there, or use a `with` block."],
    )


HANDLED = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
acquire_lock('1234collectPayment', **name)
os.kill(os.getpid(), signal.SIGTERM)
"""
IN_THREAD = """
def work():
    acquire_lock('1234collectPayment', **name)
threading.Thread(target=work).start()
"""
ENDS = {
    "exit": ("acquire_lock('1234collectPayment', **name); sys.exit(3)", 3, ""),
    "exception": ("acquire_lock('1234collectPayment', **name); 1 / 0", 1, TRACEBACK),
    "not renewed": ("acquire_lock('1234collectPayment', renew=False, **name)", 0, ""),
    "reentered": (
        "for _ in range(3): acquire_lock('1234collectPayment', reentrant=True, **name)",
        0,
        "",
    ),
    "signal that is handled": (HANDLED, 4, ""),
    "task": ("asyncio.run(aacquire_lock('1234collectPayment', **name))", 0, ""),
    "thread that has ended": (IN_THREAD, 0, ""),
}


@pytest.mark.parametrize(("program", "status", "logged"), ENDS.values(), ids=ENDS)
def test_lock_is_released_however_the_process_ends(program: str, status: int, logged: str) -> None:
    """If it runs atexit's functions."""
    got, said = ended("default", program)
    assert is_free("default")
    assert got == status
    assert SAID in said
    assert logged in said


def test_lease_that_outlasts_its_modules_is_collected_silently() -> None:
    """The interpreter empties modules at its end, and the builtins last."""
    program = "import builtins; builtins.kept = acquire_lock('1234collectPayment', **name)"
    _, said = ended("default", program)
    assert is_free("default")
    assert said.splitlines() == [f"{SAID}: release it there, or use a `with` block."]


def test_warning_can_be_shown_too() -> None:
    """It is a ResourceWarning, like a request's."""
    program = (
        "import warnings; warnings.simplefilter('error')\n"
        "for each in ('1234collectPayment', 'report'): acquire_lock(each, **name)"
    )
    _, said = ended("default", program)
    assert is_free("default")
    assert is_free("default", "report")
    assert f"ResourceWarning: {SAID}" in said


def test_process_that_releases_says_nothing() -> None:
    """Nor does one whose block was left by sys.exit()."""
    program = (
        "acquire_lock('1234collectPayment', **name); release_lock('1234collectPayment', "
        "backend=ALIAS)\nwith distributed_lock('report', **name): sys.exit()"
    )
    assert ended("default", program) == (0, "")


def test_forked_child_does_not_release_its_parents_lock() -> None:
    """It releases its own."""
    program = (
        "acquire_lock('report', **name)\n"
        "if not os.fork():\n"
        "    acquire_lock('1234collectPayment', **name)\n"
        "    sys.exit()\n"
        "os.wait()\n"
        "print(acquire_lock('1234collectPayment', **name) is not None, flush=True)\n"
        "print('held by the parent', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    process = begin("default", program)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    assert process.stdout.readline() == "held by the parent\n"
    assert not is_free("default", "report")
    process.communicate("go on\n", timeout=120)
    assert is_free("default", "report")


def test_lock_of_a_running_thread_is_not_released() -> None:
    """A daemon thread may work until the very end: the lock ends with its ttl."""
    program = (
        "held = threading.Event()\n"
        "def work():\n"
        "    acquire_lock('1234collectPayment', **(name | {'ttl': 2}))\n"
        "    held.set()\n"
        "    threading.Event().wait()\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "held.wait()"
    )
    assert ended("default", program) == (0, "")
    lease = acquire("default", timeout=60)
    lease.release()


@pytest.mark.once
@pytest.mark.needs("redis")
@pytest.mark.parametrize("store_timeout", [1, 60])
def test_store_that_is_down_does_not_keep_a_process_from_ending(
    redis_server: Server, store_timeout: int
) -> None:
    """It is asked once, however many leases it has; a few lines tell of all of them."""
    program = (
        "for number in range(50): acquire_lock(f'{number}', **(name | {'ttl': 5}))\n"
        "print('acquired', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    place = json.dumps(redis_server.settings)
    process = begin("redis", program, store_timeout=store_timeout, DISTLOCK_TEST_REDIS=place)
    assert process.stdout is not None
    assert process.stdout.readline() == "acquired\n"
    with redis_server.paused():
        began = time.monotonic()
        _, said = process.communicate("go on\n", timeout=120)
        # It would take 50 seconds to ask for each lease, or 60 to wait for `store_timeout`.
        assert time.monotonic() - began < LONGEST + 15
    assert process.returncode == 0
    logged = [line for line in said.splitlines() if "was not released by a process" in line]
    assert len(logged) <= LONGEST + 2
    left_out = re.findall(r"\((\d+) more lines", "".join(logged))
    assert len(logged) + sum(map(int, left_out)) == 50
    assert all("could not be released: Redis at" in line for line in logged)
