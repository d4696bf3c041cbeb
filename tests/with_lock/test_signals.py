"""Signals: while with_lock waits, while the command runs, and the one that can't be caught."""

from __future__ import annotations

import os
import signal
import subprocess

import psutil
import pytest

from django_distlock import acquire_lock
from django_distlock.models import LockWaiter
from tests.support.concurrency import until
from tests.support.databases import committed
from tests.support.holders import held_in, holding
from tests.support.with_lock import NAME, WithLock, is_running

pytestmark = [pytest.mark.once, committed]

PASSED_ON = ("HUP", "INT", "QUIT", "USR1", "USR2", "TERM")
TRAPS = "; ".join(f"trap 'echo {name}' {name}" for name in PASSED_ON)
SCRIPT = f"""
{TRAPS}
echo ready
until [ "$line" = go ]; do read line; done
trap - TERM
echo going
exec cat
"""


def send(running: WithLock, name: str) -> None:
    """Send a signal to with_lock."""
    running.process.send_signal(signal.Signals[f"SIG{name}"])


def test_signals_are_passed_on_once_and_input_reaches_the_command() -> None:
    """The command ends by the last signal, so with_lock has the exit code that shells give."""
    with WithLock("--", "sh", "-c", SCRIPT) as running:
        assert running.read() == "ready"
        for name in PASSED_ON:
            send(running, name)
            assert running.read() == name
        running.write("go\n")
        assert running.read() == "going"
        running.write("a line\n")
        assert running.read() == "a line"
        send(running, "TERM")
        assert running.process.wait(60) == 143
        assert running.end() == (143, "", "")
    assert acquire_lock(NAME)


def test_signal_that_is_ignored_is_ignored_by_the_command_too() -> None:
    """As `nohup` wants it."""
    with WithLock("--", "sh", "-c", SCRIPT, begin=("nohup",)) as running:
        assert running.read() == "ready"
        for name in ("HUP", "USR1"):
            send(running, name)
        assert running.read() == "USR1"
        running.write("go\n")
        assert running.end()[0] == 0


@pytest.mark.parametrize(
    ("alias", "name", "code"),
    [
        ("default", "INT", 130),
        pytest.param("postgresql", "TERM", 143, marks=pytest.mark.needs("postgresql")),
    ],
)
def test_signal_ends_the_wait(alias: str, name: str, code: int) -> None:
    """It leaves the queue, and the command is not run."""
    with (
        holding(alias, NAME),
        WithLock("--timeout", "none", "--", "echo", "never", database=alias) as waiting,
    ):
        assert waiting.complaint().startswith("with_lock: Waiting: Somebody else holds")
        if alias == "postgresql":
            until(LockWaiter.objects.using(alias).exists)
        send(waiting, name)
        assert waiting.end() == (code, "", "")
    lease = acquire_lock(NAME, backend=alias, timeout=60)
    assert lease is not None
    assert lease.release()


@pytest.mark.parametrize("trap", ["-", ""])
def test_killed_with_lock_takes_the_command_with_it(trap: str) -> None:
    """With all that it started, whether or not that heeds SIGTERM; the lock ends with its ttl."""
    traps = f"trap '{trap}' TERM; trap 'echo passed on' USR1"
    script = f"{traps}; sleep 600 & echo $$ $!; wait; wait"
    with WithLock("--ttl", "2", "--grace", "0.1", "--", "sh", "-c", script) as running:
        processes = [int(each) for each in running.read().split()]
        send(running, "USR1")  # it is passed on once the command is supervised
        assert running.read() == "passed on"
        running.process.kill()
        running.process.wait(60)
        assert held_in("default") == [NAME]
        until(lambda: not any(map(is_running, processes)))
        assert running.end()[2] == "with_lock was killed: stopping the command that it ran.\n"
    lease = acquire_lock(NAME, timeout=60)
    assert lease is not None


def test_killed_watchdog_does_no_harm() -> None:
    """It is needed only if with_lock is killed, too."""
    with WithLock("--", "sh", "-c", "ps -o pid= --ppid $PPID; read line; exit 7") as running:
        script, watchdog = sorted(int(running.read()) for _ in range(2))[::-1]
        os.kill(watchdog, signal.SIGKILL)
        running.write("go\n")
        assert running.end() == (7, "", "")
        assert not is_running(script)


IN_A_CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


@pytest.mark.skipif(
    subprocess.run([*IN_A_CONTAINER, "true"], capture_output=True, check=False).returncode != 0,
    reason="this account may not make process namespaces",
)
def test_first_process_of_a_container_reaps_orphans_and_ends_by_a_signal() -> None:
    """For such a process no signal has a default action, and it inherits every orphan."""
    script = "(sh -c 'exit 0' & echo $!); while read line; do ps -o pid= --ppid 1; echo end; done"
    with WithLock("--", "sh", "-c", script, begin=IN_A_CONTAINER) as running:
        orphan = running.read()

        def children() -> set[str]:
            running.write("go\n")
            return {pid.strip() for pid in iter(running.read, "end")}

        until(lambda: orphan not in children())
        assert len(children()) == 2  # the command, and the watchdog
        [first] = psutil.Process(running.process.pid).children()
        first.terminate()
        assert running.process.wait(60) == 143
