"""Which connections are guarded, and the guard beside other instrumentation."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_distlock import LockLost, distributed_lock
from django_distlock.backends.database.connections import close_own_connections
from django_distlock.leases.registry import current_registry
from tests.app.models import Counter
from tests.support.databases import another_session, committed, on_each_server
from tests.support.holders import acquire, take_away
from tests.support.paths import ROOT

PROCESS = """
import asyncio, sys, threading
import django
from django.conf import settings
settings.configure(
    DATABASES={
        alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{sys.argv[1]}/{alias}"}
        for alias in ("default", "other")
    },
    DISTLOCK={
        "default": {
            "BACKEND": "django_distlock.backends.memory.MemoryBackend",
            "OPTIONS": {"guard_commits": sys.argv[2] == "guarded"},
        }
    },
)
django.setup()
from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django_distlock import LockLost, acquire_lock, distributed_lock, lock_backends

def execute(sql, alias="default"):
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)

def guarded():
    opened = [connection for connection in connections.all() if connection.connection]
    return [connection.alias for connection in opened if "commit" in vars(connection)]

async def guarded_elsewhere():
    return await sync_to_async(guarded)()

def lose(lease):
    lock_backends["default"].force_release(lease.semaphore, lease.token)

def write_and_lose(lease):
    try:
        with transaction.atomic():
            execute("INSERT INTO written VALUES (1)")
            lose(lease)
            lease.due = 0
            try:
                lease.renew()
            except LockLost:
                pass
    except LockLost:
        return "refused"
    return "committed"
"""

FROM_THE_FIRST_ACQUISITION = """
execute("CREATE TABLE written (number int)")
print(guarded())
acquire_lock("first").release()
print(guarded())
execute("SELECT 1", "other")
print(guarded())
connections["other"].close()
execute("SELECT 1", "other")
print(guarded())
"""

IN_ANOTHER_THREAD = """
async def main():
    await sync_to_async(execute)("CREATE TABLE written (number int)")
    print(await sync_to_async(guarded)())
    try:
        async with distributed_lock("async") as lease:
            print(await sync_to_async(write_and_lose)(lease))
    except LockLost:
        print("lost")
    print(await sync_to_async(guarded)())

asyncio.run(main())
"""


def printed(tmp_path: Path, code: str, setting: str = "guarded") -> list[str]:
    """Return the output of a process that has acquired nothing yet."""
    done = subprocess.run(
        [sys.executable, "-c", PROCESS + code, str(tmp_path), setting],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("setting", "after", "with_other"),
    [
        ("guarded", "['default']", "['default', 'other']"),
        ("unguarded", "[]", "[]"),
    ],
)
def test_connections_are_guarded_from_the_first_acquisition_on(
    tmp_path: Path, setting: str, after: str, with_other: str
) -> None:
    """A process that acquires nothing, or whose stores have no guard, keeps Django's methods."""
    assert printed(tmp_path, FROM_THE_FIRST_ACQUISITION, setting) == [
        "[]",
        after,
        with_other,
        with_other,
    ]


def test_connection_that_another_thread_opened_before_is_guarded(tmp_path: Path) -> None:
    """The task that acquires the lock may use the connection by sync_to_async()."""
    assert printed(tmp_path, IN_ANOTHER_THREAD) == ["[]", "refused", "lost", "['default']"]


@committed
@on_each_server
def test_connections_of_the_locks_own_are_not_guarded(alias: str) -> None:
    """Nothing of the site's is committed on them."""
    opened: list[BaseDatabaseWrapper] = []

    def remember(*, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
        opened.append(connection)

    close_own_connections()
    connection_created.connect(remember)
    try:
        acquire(alias).release()
    finally:
        connection_created.disconnect(remember)
    assert opened
    assert not any("commit" in vars(connection) for connection in opened)


@committed
@on_each_server
def test_guard_keeps_other_instruments_of_a_connection(alias: str) -> None:
    """It is installed once, however often the connection is opened."""
    connection = connections[alias]
    connection.close()
    vars(connection).pop("commit", None)  # a guard that is referenced counts as in use
    commit = type(connection).commit
    instrument = mock.Mock(side_effect=lambda: commit(connection))
    with mock.patch.dict(vars(connection)):
        vars(connection)["commit"] = instrument
        for _ in range(2):
            connection.ensure_connection()
            with (
                distributed_lock("1234collectPayment", backend=alias),
                transaction.atomic(using=alias),
            ):
                Counter.objects.using(alias).create()
            with (
                pytest.raises(LockLost),
                distributed_lock("1234collectPayment", backend=alias) as lease,
            ):
                with transaction.atomic(using=alias):
                    take_away(lease)
            connection.close()
        assert instrument.call_count == 2
    assert Counter.objects.using(alias).count() == 2


class Instrument:
    """An object that wraps a method of a connection, with the method in a slot."""

    __slots__ = ("calls", "wrapped")

    def __init__(self, wrapped: Callable[[], None], calls: list[str]) -> None:
        self.wrapped = wrapped
        self.calls = calls

    def __call__(self) -> None:
        self.calls.append("Instrument")
        self.wrapped()


def closure(wrapped: Callable[[], None], calls: list[str]) -> Callable[[], None]:
    """Wrap it in a function."""

    def instrument() -> None:
        calls.append("closure")
        wrapped()

    return instrument


def method(wrapped: Callable[[], None], calls: list[str]) -> Callable[[], None]:
    """Wrap it in a bound method."""
    return Instrument(wrapped, calls).__call__


@committed
@pytest.mark.parametrize("wrap", [Instrument, closure, method])
@pytest.mark.parametrize("name", ["commit", "rollback"])
def test_another_wrapper_that_is_put_back_at_each_reconnection_does_not_pile_up(
    name: str, wrap: Callable[..., Callable[[], None]]
) -> None:
    """It only checks whether the outermost wrapper is its own; the guard did so, too."""
    calls: list[str] = []
    ours: list[object] = []

    def install(*, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
        if vars(connection)[name] not in ours:
            ours.append(wrap(getattr(connection, name), calls))
            vars(connection)[name] = ours[-1]

    with connected_anew("default") as connection:
        connection_created.connect(install)
        try:
            for _ in range(2_000):
                connection_created.send(sender=type(connection), connection=connection)
        finally:
            connection_created.disconnect(install)
        assert len(ours) == 1
        with mock.patch(
            "django_distlock.leases.commit_guard.current_registry", wraps=current_registry
        ) as asked:
            getattr(connection, name)()
    assert len(calls) == asked.call_count == 1


@committed
@pytest.mark.parametrize("name", ["commit", "rollback"])
def test_guard_that_another_wrapper_has_replaced_is_put_back(name: str) -> None:
    """At the next connection. Another connection's guard doesn't count."""
    with connected_anew("default") as connection, connected_anew("default") as other:
        vars(connection)[name] = closure(getattr(other, name), [])
        connection_created.send(sender=type(connection), connection=connection)
        with mock.patch(
            "django_distlock.leases.commit_guard.current_registry", wraps=current_registry
        ) as asked:
            getattr(connection, name)()
        assert asked.call_count == 2  # including the other's, which it calls
        vars(connection).pop(name)
        connection_created.send(sender=type(connection), connection=connection)
        with mock.patch(
            "django_distlock.leases.commit_guard.current_registry", wraps=current_registry
        ) as asked:
            getattr(connection, name)()
        assert asked.call_count == 1


@contextmanager
def connected_anew(alias: str) -> Iterator[BaseDatabaseWrapper]:
    """Connect again, outside any transaction."""
    acquire(alias).release()  # from the first acquisition on connections are guarded
    with another_session(alias) as connection:
        connection.ensure_connection()
        yield connection
