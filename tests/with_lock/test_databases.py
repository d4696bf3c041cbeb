"""The database's own lock: without a table, beside it, and when its connection ends."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import connections

from django_distlock import LockBackendUnavailable, acquire_lock, lock_backends
from django_distlock.backends.database.own_connection import OwnConnection
from django_distlock.management.with_lock import command_lock
from django_distlock.management.with_lock import database_lock as database_locks
from django_distlock.management.with_lock.database_lock import (
    LOCKS,
    NoDatabaseLock,
    database_lock,
)
from django_distlock.signals import lock_contended
from tests.support.concurrency import elsewhere, until
from tests.support.database_locks import (
    holder_of,
    kill_holder,
    own_lock,
    with_older_table,
    without_table,
)
from tests.support.databases import (
    another_session,
    behind_pgbouncer,
    committed,
    on_each_database,
    on_each_server,
)
from tests.support.holders import held_in
from tests.support.with_lock import NAME, meanwhile, run, run_script

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.once, committed]

SERVERS_OWN = {"postgresql": "postgres", "mariadb": "mysql"}
"""A database that each server has."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check often whether the lock is held."""
    monkeypatch.setattr(command_lock, "CHECK_INTERVAL", 0.01)


@on_each_database
@pytest.mark.parametrize("change", [without_table, with_older_table])
def test_without_the_table_the_databases_own_lock_is_enough(
    change: Callable[[str], Any], alias: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """There is no token then."""
    with change(alias):
        assert run_script('echo "${DISTLOCK_TOKEN-none}"', backend=alias) == (0, "")
        with own_lock(alias, "another"), own_lock(alias):
            contended = run("--timeout", "0.1", "--", "echo", "never", backend=alias)
    assert contended.code == 75
    assert contended.complaints.endswith(f"Somebody else holds {NAME!r}.")
    assert capfd.readouterr().out == "none\n"


@on_each_database
def test_own_lock_keeps_out_a_command_that_finds_the_table(alias: str) -> None:
    """Another command, which found none, may run; the table says who, if it knows."""
    with own_lock(alias):
        assert run("--", "true", backend=alias).code == 75
        other = elsewhere(lambda: acquire_lock(NAME, label="the other command", backend=alias))
        assert other is not None
        assert "the other command" in run("--", "true", backend=alias).complaints
        assert elsewhere(other.release)


@on_each_database
def test_own_lock_is_waited_for(alias: str) -> None:
    """And granted when it is released."""
    with own_lock(alias) as release, ExitStack() as started:
        timer = threading.Timer(0.1, release)
        started.callback(timer.join)
        timer.start()
        assert run("--timeout", "60", "--", "true", backend=alias).code == 0


@on_each_database
def test_lease_is_acquired_when_the_table_appears(alias: str, tmp_path: Path) -> None:
    """From then on it keeps out acquire_lock(), too."""
    started, enough = tmp_path / "started", tmp_path / "enough"
    with without_table(alias) as create_table:

        def look() -> None:
            try:
                create_table()
                until(lambda: elsewhere(lambda: held_in(alias)) == [NAME])
                assert elsewhere(lambda: acquire_lock(NAME, backend=alias)) is None
            finally:
                enough.touch()

        script = f"touch {started}; until [ -e {enough} ]; do sleep 0.02; done"
        with meanwhile(started, look):
            assert run_script(script, backend=alias) == (0, "")
    assert held_in(alias) == []


@on_each_database
def test_lock_is_lost_if_other_code_has_it_when_the_table_appears(
    alias: str, tmp_path: Path
) -> None:
    """Nothing kept that out before."""
    started = tmp_path / "started"
    other = elsewhere(lambda: acquire_lock(NAME, backend=alias, label="a worker", renew=False))
    assert other is not None
    with without_table(alias) as create_table, meanwhile(started, create_table):
        code, complaints = run_script(f"touch {started}; sleep 600", backend=alias)
    assert code == 76
    assert "acquired it when its table was created. Stopping the command." in complaints
    assert elsewhere(other.release)


@on_each_server
def test_command_is_stopped_when_the_session_of_its_only_lock_ends(
    alias: str, tmp_path: Path
) -> None:
    """Another command may have got the lock."""
    started = tmp_path / "started"
    with without_table(alias), meanwhile(started, lambda: kill_holder(alias)):
        code, complaints = run_script(f"touch {started}; sleep 600", backend=alias)
    assert code == 76
    assert "that held the database's own lock has ended. Stopping the command." in complaints


@on_each_server
def test_command_goes_on_if_it_has_a_lease_when_that_session_ends(
    alias: str, tmp_path: Path
) -> None:
    """The database's own lock is acquired again."""
    started, enough = tmp_path / "started", tmp_path / "enough"

    def kill_and_wait() -> None:
        try:
            killed = kill_holder(alias)
            until(lambda: holder_of(alias) not in (None, killed))
        finally:
            enough.touch()

    script = f"touch {started}; until [ -e {enough} ]; do sleep 0.02; done"
    with meanwhile(started, kill_and_wait):
        assert run_script(script, backend=alias) == (0, "")


@pytest.mark.needs("postgresql")
def test_no_transaction_stays_open_while_the_command_runs(tmp_path: Path) -> None:
    """It would keep the server from cleaning up, for as long as the command takes."""
    started, looked, states = tmp_path / "started", tmp_path / "looked", set[str]()

    def look() -> None:
        with another_session("postgresql") as session, session.cursor() as cursor:
            cursor.execute("SELECT state FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            states.update(state for (state,) in cursor.fetchall() if state)
        looked.touch()

    script = f"touch {started}; until [ -e {looked} ]; do sleep 0.02; done"
    with meanwhile(started, look):
        assert run_script(script, backend="postgresql") == (0, "")
    assert states == {"idle"}


@pytest.mark.needs("mariadb")
def test_server_releases_the_lock_of_a_host_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets no checks any more. PostgreSQL's keepalives need a host that really has gone."""
    monkeypatch.setattr(database_locks, "LONGEST_SILENCE", 1)
    lock = database_lock(lock_backends["mariadb"], NAME)
    assert lock is not None
    assert lock.acquire()
    until(lambda: holder_of("mariadb") is None)
    assert not lock.is_held()


@pytest.mark.needs("postgresql", "pgbouncer")
@pytest.mark.parametrize("is_declared", [True, False])
def test_pooler_needs_the_table(is_declared: bool, capfd: pytest.CaptureFixture[str]) -> None:
    """A session, and its advisory lock, would pass from client to client."""
    with behind_pgbouncer(DISABLE_SERVER_SIDE_CURSORS=is_declared):
        assert run("--", "true", backend="postgresql") == (0, "")
        with without_table("postgresql"):
            code, complaints = run("--", "echo", "never", backend="postgresql")
    assert code == 1
    assert complaints.endswith(
        ". Run python manage.py migrate --database postgresql distlock. Before that, with_lock "
        "would need the database's own lock, but the database 'postgresql' is behind a pooler, "
        "such as PgBouncer, where PostgreSQL's advisory locks are not safe: give with_lock a "
        "direct connection. Or give --backend another store."
    )
    assert capfd.readouterr().out == ""


def test_other_databases_need_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those do for which Django has a third party's backend."""
    monkeypatch.delitem(LOCKS, "sqlite")
    assert run("--", "true") == (0, "")
    with without_table("default"):
        code, complaints = run("--", "true")
    assert code == 1
    assert "with_lock can't lock SQLite itself" in complaints


def test_database_in_memory_needs_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other process sees it."""
    monkeypatch.setitem(connections["default"].settings_dict, "NAME", ":memory:")
    lock = database_lock(lock_backends["default"], NAME)
    assert lock is not None
    with pytest.raises(NoDatabaseLock, match="no plain file"):
        lock.acquire()


def test_directory_that_can_not_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite could not write there either."""
    monkeypatch.setitem(connections["default"].settings_dict, "NAME", "/nowhere/db.sqlite3")
    lock = database_lock(lock_backends["default"], NAME)
    assert lock is not None
    with pytest.raises(LockBackendUnavailable, match="No such file or directory"):
        lock.acquire()


@on_each_server
def test_own_locks_of_other_databases_and_semaphores_are_others(alias: str) -> None:
    """MariaDB's are the whole server's."""
    with own_lock(alias), own_lock(alias, "another"):
        assert run("--", "true", backend=alias).code == 75
        with mock.patch.dict(connections[alias].settings_dict, NAME=SERVERS_OWN[alias]):
            with own_lock(alias):
                pass


@on_each_server
def test_database_that_does_not_answer_is_unavailable(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says for how long."""
    monkeypatch.setattr(OwnConnection, "do", mock.Mock(side_effect=TimeoutError))
    limit = lock_backends[alias].store_timeout
    complaint = f"DISTLOCK['{alias}']: no answer in {limit} seconds"
    assert run("--", "true", backend=alias) == (1, complaint)


@on_each_server
def test_refusal_by_the_databases_own_lock_is_told(alias: str) -> None:
    """To receivers of the signal, such as the history of events, and so once."""
    heard: list[Any] = []

    def hear(semaphore: str, **others: Any) -> None:
        heard.append(semaphore)

    lock_contended.connect(hear)
    try:
        with own_lock(alias):
            assert run("--", "true", backend=alias).code == 75
    finally:
        lock_contended.disconnect(hear)
    assert heard == [NAME]
