"""Acquire the lock, run the command, release the lock."""

import os
from collections.abc import Sequence

from django_distlock.exceptions import LockBackendUnavailable, LockNotAcquired
from django_distlock.management.exit_codes import ExitCode

from .child import Child
from .command_lock import CommandLock
from .signals import Interrupted, Signals
from .supervision import Report, Supervision
from .watchdog import Watchdog


def run_locked(
    command: Sequence[str],
    lock: CommandLock,
    timeout: float | None,
    grace: float,
    report: Report,
) -> int:
    """Run the command under the lock, and return the exit code of with_lock.

    LockNotAcquired: it was contended until `timeout` seconds had passed.
    LockBackendUnavailable: the store can't be reached. The command was not run in either case.
    """
    with Signals() as signals:
        try:
            _acquire(lock, timeout, report)
            code = _run(command, lock, signals, grace, report)
        except Interrupted as interruption:
            code = interruption.exit_code
        finally:
            signals.collect()
            _release(lock, report)
    if lock.loss and code == ExitCode.DONE:
        report(f"The lock was lost while the command ran: {lock.loss}.")
        return ExitCode.LOST
    return code


def _acquire(lock: CommandLock, timeout: float | None, report: Report) -> None:
    """Acquire the lock; if that means a wait, report why."""
    try:
        lock.acquire(0)
    except LockNotAcquired as error:
        if timeout == 0:
            raise
        report(f"Waiting: {error}")
        lock.acquire(timeout)


def _run(
    command: Sequence[str], lock: CommandLock, signals: Signals, grace: float, report: Report
) -> int:
    watchdog = Watchdog()
    signals.collect()
    try:
        child = Child(command, _environment(lock))
        watchdog.guard(child.pid, grace)
        supervision = Supervision(child, lock, signals, grace, report)
        code = supervision.run()
    except FileNotFoundError as error:
        report(f"{command[0]}: {error.strerror}")
        return ExitCode.NOT_FOUND
    except OSError as error:
        report(f"{command[0]}: {error.strerror}")
        return ExitCode.NOT_EXECUTABLE
    finally:
        watchdog.end()
    return ExitCode.LOST if supervision.lost_early else code


def _environment(lock: CommandLock) -> dict[str, str]:
    """Return the command's environment. An outer with_lock's token is not this one's."""
    variables = {**os.environ, "DISTLOCK_SEMAPHORE": lock.semaphore}
    variables.pop("DISTLOCK_TOKEN", None)
    if lock.token is not None:
        variables["DISTLOCK_TOKEN"] = str(lock.token)
    return variables


def _release(lock: CommandLock, report: Report) -> None:
    try:
        lock.release()
    except LockBackendUnavailable as error:
        report(f"The lock is not released, and ends with its ttl: {error}")
