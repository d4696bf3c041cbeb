"""The system checks of the database backend: of its settings, and of the database itself."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.core import checks
from django.core.management import call_command
from django.db import connections
from django.test import override_settings

from django_distlock import lock_backends
from django_distlock.backends.database import DatabaseBackend
from django_distlock.backends.database.database_checks import inspect_database
from django_distlock.checks import check_databases
from django_distlock.models import Lock
from tests.support.databases import another_session, committed, on_each_database, through_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from django.db.backends.base.base import BaseDatabaseWrapper


@contextmanager
def connected(alias: str, **settings: Any) -> Iterator[BaseDatabaseWrapper]:
    """Configure a database by this alias."""
    connection = connections["default"].copy(alias)
    connection.settings_dict |= settings
    connections[alias] = connection
    connections.settings[alias] = connection.settings_dict
    try:
        yield connection
    finally:
        connection.close()
        del connections[alias], connections.settings[alias]


# Django's TestCase refuses connections to databases that it doesn't know.
unblocked = pytest.mark.usefixtures("unblock")


@pytest.fixture
def unblock(django_db_blocker: Any) -> Iterator[None]:
    """Allow connections to a test's own files."""
    with django_db_blocker.unblock():
        yield


def ids(messages: Any) -> list[str | None]:
    """Return the ids of the messages."""
    return [message.id for message in messages]


# Of the settings


class Router:
    """A router that migrates the app into one database only."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return db == "default" if app_label == "distlock" else None


def test_database_into_which_a_router_migrates_no_table_is_warned_of() -> None:
    """`migrate` would make none there, and say nothing."""
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.Router"]):
        (message,) = DatabaseBackend("jobs", using="locks").check()
        assert DatabaseBackend("jobs", using="default").check() == []
    assert DatabaseBackend("jobs", using="locks").check() == []
    assert message.id == "distlock.W012"
    assert message.msg.startswith("DISTLOCK['jobs']: locks are in the database 'locks', but by")
    assert "return db == 'locks'" in str(message.hint)


@pytest.mark.once
@pytest.mark.parametrize(("host", "is_warned"), [("replica", True), ("primary", False)])
def test_mirror_is_warned_of(host: str, is_warned: bool) -> None:
    """Unless both aliases lead to one server, as for another pool or other options."""
    with connected("main", HOST="primary"), connected("mirror", HOST=host) as mirror:
        mirror.settings_dict["TEST"] = mirror.settings_dict["TEST"] | {"MIRROR": "main"}
        mirror.settings_dict["OPTIONS"] = {"transaction_mode": "IMMEDIATE"}
        messages = DatabaseBackend("jobs", using="mirror").check()
    assert ids(messages) == ["distlock.W011"] * is_warned
    if is_warned:
        assert "by TEST['MIRROR'] is a replica of 'main'" in messages[0].msg
        assert "Write \"using\": 'main' in OPTIONS" in str(messages[0].hint)


@pytest.mark.once
@pytest.mark.parametrize(
    ("mode", "database", "is_warned"),
    [
        (None, "default", True),
        ("DEFERRED", "default", True),
        ("IMMEDIATE", "default", False),
        (None, "file", False),
        (None, "shared", True),
    ],
)
def test_deferred_transactions_on_the_file_of_locks_are_warned_of(
    mode: str | None, database: str, is_warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where data is in the same file; without ATOMIC_REQUESTS, too."""
    options = {} if mode is None else {"transaction_mode": mode}
    settings = connections["default"].settings_dict
    with connected("file", NAME="file.sqlite3", OPTIONS=options):
        with connected("shared", NAME=settings["NAME"], OPTIONS=options):
            monkeypatch.setitem(settings, "OPTIONS", options)
            monkeypatch.setattr(connections["default"], "is_in_memory_db", lambda: False)
            messages = DatabaseBackend("jobs", using=database).check()
    assert ids(messages) == ["distlock.W008"] * is_warned
    if is_warned:
        assert messages[0].msg.startswith(f"DATABASES[{database!r}]: locks and data are in one")
        assert 'Write "transaction_mode": "IMMEDIATE" and "init_command"' in str(messages[0].hint)


# Of the database


def found(alias: str) -> list[checks.CheckMessage]:
    """Return the messages of `check --database` about this store."""
    with override_settings(DISTLOCK={alias: lock_backends.settings[alias]}):
        return [*check_databases(databases=[alias])]


@contextmanager
def changed(alias: str, sql: str, undo: str) -> Iterator[None]:
    """Change the table in the block."""
    with another_session(alias) as connection:
        with connection.cursor() as cursor:
            cursor.execute(sql)
        try:
            yield
        finally:
            with connection.cursor() as cursor:
                cursor.execute(undo)


@committed
@on_each_database
def test_database_that_suits_has_no_messages(alias: str) -> None:
    """Nor has one that isn't asked for."""
    assert found(alias) == []
    assert [*check_databases()] == []


@committed
@on_each_database
def test_missing_table_is_a_warning_with_the_command(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It's no error, since that would keep `migrate` from its work; then it is not even told."""
    renamed = "ALTER TABLE {} RENAME TO {}"
    with changed(alias, renamed.format("distlock_lock", "x"), renamed.format("x", "distlock_lock")):
        (message,) = found(alias)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", ["manage.py", "migrate"])
            assert found(alias) == []
    assert (message.id, message.level) == ("distlock.W010", checks.WARNING)
    assert message.msg == (
        f"DATABASES[{alias!r}]: DISTLOCK[{alias!r}] keeps locks there, but it has no table "
        "distlock_lock."
    )
    assert message.hint == f"Run python manage.py migrate --database {alias} distlock"


@committed
@on_each_database
def test_missing_column_is_a_warning(alias: str) -> None:
    """As after an update of the package."""
    renamed = "ALTER TABLE distlock_lock RENAME COLUMN {} TO {}"
    if connections[alias].vendor == "mysql":  # older versions have another syntax
        renamed = "ALTER TABLE distlock_lock CHANGE {} {} longtext NOT NULL"
    with changed(alias, renamed.format("holder", "who"), renamed.format("who", "holder")):
        (message,) = found(alias)
    assert message.id == "distlock.W010"
    assert "it has no column distlock_lock.holder." in message.msg


@pytest.mark.once
@unblocked
def test_database_that_is_not_migrated_names_all_tables(tmp_path: Path) -> None:
    """But one that doesn't exist is not created."""
    with connected("file", NAME=tmp_path / "file.sqlite3") as connection:
        (message,) = inspect_database("jobs", connection)
        assert not (tmp_path / "file.sqlite3").exists()
        assert f"it has no file {tmp_path}/file.sqlite3." in message.msg
        connection.ensure_connection()
        (message,) = inspect_database("jobs", connection)
        assert f"no table {Lock._meta.db_table}, no table distlock_" in message.msg
        with override_settings(DATABASE_ROUTERS=[f"{__name__}.Router"]):
            assert inspect_database("jobs", connection) == []  # check_place() tells of it
        call_command("migrate", "distlock", database="file", verbosity=0)
        assert inspect_database("jobs", connection) == []


@pytest.mark.once
@unblocked
@pytest.mark.parametrize(("mode", "is_warned"), [("delete", True), ("wal", False)])
def test_journal_of_a_shared_file_is_asked_for(mode: str, is_warned: bool, tmp_path: Path) -> None:
    """A file keeps its mode, wherever it was set."""
    place = {"NAME": tmp_path / "file.sqlite3", "OPTIONS": {"transaction_mode": "IMMEDIATE"}}
    with connected("file", **place) as connection, connected("data", **place):
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA journal_mode = {mode}")
        call_command("migrate", "distlock", database="file", verbosity=0)
        messages = inspect_database("jobs", connection)
        del connections.settings["data"]
        assert inspect_database("jobs", connection) == []
        connections.settings["data"] = {}
    assert ids(messages) == ["distlock.W009"] * is_warned
    if is_warned:
        assert messages[0].msg.startswith("DATABASES['file']: locks and data are in one SQLite")


READ_ONLY = {
    "postgresql": {"options": "-c default_transaction_read_only=on"},
    "mariadb": {"init_command": "SET SESSION tx_read_only = 1"},
}


@committed
@pytest.mark.parametrize(
    "alias", [pytest.param(name, marks=pytest.mark.needs(name)) for name in READ_ONLY]
)
def test_database_that_can_only_be_read_is_an_error(alias: str) -> None:
    """A replica, or a primary that was fenced off; here only the sessions for locks are."""
    entry = connections.settings[alias]
    with mock.patch.dict(entry, OPTIONS=entry["OPTIONS"] | READ_ONLY[alias]):
        (message,) = found(alias)
    assert (message.id, message.level) == ("distlock.E007", checks.ERROR)
    assert message.msg.startswith(f"DATABASES[{alias!r}]: DISTLOCK[{alias!r}] keeps locks there")
    assert 'Write "using": "…"' in str(message.hint)


@committed
@pytest.mark.needs("mariadb")
@pytest.mark.parametrize(
    ("change", "undo", "id_", "said"),
    [
        ("ENGINE=Aria", "ENGINE=InnoDB", "distlock.E008", "of the engine Aria"),
        (
            "MODIFY semaphore varchar(255) COLLATE utf8mb4_bin NOT NULL",
            "MODIFY semaphore varbinary(1020) NOT NULL",
            "distlock.W013",
            "has the collation utf8mb4_bin",
        ),
    ],
)
def test_mysql_table_that_does_not_suit_is_reported(
    change: str, undo: str, id_: str, said: str
) -> None:
    """The hint has the statement that corrects it."""
    with changed("mariadb", f"ALTER TABLE distlock_lock {change}", "SELECT 1"):
        (message,) = found("mariadb")
        assert message.id == id_
        assert said in message.msg
        hint = str(message.hint)
        assert hint == f"Run ALTER TABLE distlock_lock {undo}"
        with another_session("mariadb") as connection, connection.cursor() as cursor:
            cursor.execute(hint.removeprefix("Run "))
        assert found("mariadb") == []


@committed
@pytest.mark.needs("mariadb")
def test_binary_collation_without_padding_suits() -> None:
    """It distinguishes all texts, too."""
    table = "ALTER TABLE distlock_lock MODIFY semaphore"
    with changed(
        "mariadb",
        f"{table} varchar(255) COLLATE utf8mb4_nopad_bin NOT NULL",
        f"{table} varbinary(1020) NOT NULL",
    ):
        assert found("mariadb") == []


@committed
@pytest.mark.once
@pytest.mark.needs("mariadb")
def test_database_that_does_not_answer_is_an_error_in_time() -> None:
    """Within the store's time limit; connecting takes whole seconds."""
    options = {"using": "mariadb", "store_timeout": 0.1}
    backend = "django_distlock.backends.database.DatabaseBackend"
    with through_proxy("mariadb") as proxy, proxy.swallowing():
        with override_settings(DISTLOCK={"jobs": {"BACKEND": backend, "OPTIONS": options}}):
            messages = [*check_databases(databases=["mariadb"])]
    assert ids(messages) == ["distlock.E009"]
    assert messages[0].msg.startswith("DISTLOCK['jobs']: no lock can be acquired: ")
