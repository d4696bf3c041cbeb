"""The system checks of stores, whichever they are: with --deploy, and of their time limits."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from django.core import checks
from django.core.management import CommandError, call_command
from django.test import override_settings
from django.urls import path

from django_distlock import distributed_lock
from django_distlock.checks import (
    check_databases,
    check_deployed_databases,
    check_deployment,
    check_lock_backends,
)
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.records import Pause, Refusal
from django_distlock.views.lock_checks import check_locks
from tests.app.backends import MinimalBackend
from tests.support.databases import committed
from tests.support.ports import HOST
from tests.support.processes import worker_environment

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend

pytestmark = pytest.mark.once

PASSWORD = "s3cretpassw0rd-of-a-store"
POSTGRESQL = "django_distlock.backends.database.DatabaseBackend"
SERVER = "django_distlock.backends.server.ServerBackend"


class FailingBackend(MinimalBackend):
    """A store whose checks fail."""

    using = "default"

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        raise ZeroDivisionError(f"redis://user:{PASSWORD}@host")

    check_database = check_deployment = check


FAILING = {"failing": {"BACKEND": f"{__name__}.FailingBackend"}}


@pytest.mark.parametrize("check", [check_lock_backends, check_databases, check_deployed_databases])
def test_check_that_fails_is_a_warning(check: Any) -> None:
    """A check never raises, and shows no credentials."""
    minimal = {"BACKEND": "tests.app.backends.MinimalBackend"}
    with override_settings(DISTLOCK=FAILING | {"minimal": minimal}):
        (message,) = check(databases=["default"])
    assert (message.id, message.level) == ("distlock.W019", checks.WARNING)
    assert message.msg == (
        "DISTLOCK['failing']: its checks failed: ZeroDivisionError: redis://…@host"
    )
    assert "report it to its authors" in message.hint


@pytest.mark.parametrize("setting", [["default"], {"default": {}}, {5: {}}])
@pytest.mark.parametrize("check", [check_databases, check_deployment, check_deployed_databases])
def test_wrong_setting_is_left_to_the_check_of_settings(check: Any, setting: Any) -> None:
    """It is reported once."""
    with override_settings(DISTLOCK=setting):
        assert [*check(databases=["default"])] == []


@pytest.fixture
def no_locked_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the locks of the tests' own views and tasks, which name other stores."""
    for name in ("locks_of_views", "locks_of_tasks"):
        monkeypatch.setattr(f"django_distlock.views.lock_checks.{name}", lambda: iter(()))
    monkeypatch.setattr("django_distlock.views.lock_checks.like_f_strings", {})


@pytest.mark.usefixtures("no_locked_code")
def test_checks_can_be_silenced() -> None:
    """By their ids."""
    with override_settings(DISTLOCK=FAILING, SILENCED_SYSTEM_CHECKS=["distlock.W019"]):
        call_command("check", tags=["distlock"], fail_level="WARNING")
    with override_settings(DISTLOCK=FAILING), pytest.raises(CommandError, match=r"distlock\.W019"):
        call_command("check", tags=["distlock"], fail_level="WARNING")


def test_plain_check_contacts_nothing(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a server, nor a database, which pytest-django denies a test without a mark.

    But redis-py's client of a cluster, which a site makes itself, connects at once.
    """
    stores = {alias: each for alias, each in settings.DISTLOCK.items() if "cluster" not in alias}
    settings.DISTLOCK = stores
    monkeypatch.setattr(socket.socket, "connect", lambda *arguments: pytest.fail("connected"))
    found = {message.id for message in checks.run_checks(tags=["distlock"])}
    assert found <= {"distlock.W005", "distlock.W014", "distlock.W017", "distlock.E011"}


# Reachability


def deployed(distlock: dict[str, Any], *databases: str) -> list[str | None]:
    """Return the ids of the deployment check's messages."""
    with override_settings(DISTLOCK=distlock):
        messages = [*check_deployment(), *check_deployed_databases(databases=databases)]
    return [message.id for message in messages]


@pytest.mark.usefixtures("no_locked_code")
def test_store_that_grants_no_lock_is_an_error_of_a_deployment(unused_port: int) -> None:
    """By the command that the documentation gives."""
    options = {"address": f"{HOST}:{unused_port}", "secret": PASSWORD, "store_timeout": 0.5}
    with override_settings(DISTLOCK={"jobs": {"BACKEND": SERVER, "OPTIONS": options}}):
        call_command("check", tags=["distlock"])  # asks nobody
        with pytest.raises(CommandError) as caught:
            call_command("check", tags=["distlock"], deploy=True)
    text = str(caught.value)
    assert "(distlock.E009) DISTLOCK['jobs']: no lock can be acquired: " in text
    assert f"{HOST}:{unused_port}" in text
    assert "health.check('jobs')" in text
    assert PASSWORD not in text


def errors(database: dict[str, Any], *options: str) -> str:
    """Return what `manage.py check` writes for a site whose locks are in the database `nowhere`."""
    store = {"BACKEND": POSTGRESQL, "OPTIONS": {"using": "nowhere"}}
    code = (
        "from django.core.management import execute_from_command_line as run; import sys; "
        "from django.conf import settings; settings.configure(SECRET_KEY='x', "
        f"DATABASES={{'default': {{}}, 'nowhere': {database!r}}}, "
        f"DISTLOCK={{'default': {store!r}}}, INSTALLED_APPS=['django_distlock']); "
        "run(['manage.py', 'check', *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", code, *options]
    found = subprocess.run(
        command, capture_output=True, text=True, check=False, env=worker_environment()
    )
    return found.stderr


def test_database_is_only_asked_if_it_is_named() -> None:
    """As Django's own checks do; a table that is missing is no reason to ask either."""
    file = {"ENGINE": "django.db.backends.sqlite3", "NAME": "/nowhere/file"}
    assert "distlock" not in errors(file, "--deploy")
    error = errors(file, "--deploy", "--database", "nowhere")
    assert "distlock.E009" in error
    assert "Start the store, or correct where DATABASES['nowhere'] says that it is." in error
    assert "distlock.W010" in errors(file, "--database", "nowhere")


@pytest.mark.parametrize("options", [["--deploy"], []])
def test_database_that_is_down_is_one_error(options: list[str], unused_port: int) -> None:
    """Of a deployment, too, where two checks notice it."""
    down = {"ENGINE": "django.db.backends.postgresql", "HOST": HOST, "PORT": unused_port}
    error = errors(down | {"NAME": "site"}, "--database", "nowhere", *options)
    assert error.count("distlock.E009") == 1


@committed
@pytest.mark.parametrize(
    "alias",
    [
        "default",
        *(
            pytest.param(name, marks=pytest.mark.needs(name))
            for name in ("postgresql", "mariadb", "redis", "memcached", "lock_server")
        ),
    ],
)
def test_store_that_works_has_no_messages(alias: str, settings: Any) -> None:
    """Also in a deployment."""
    only = {alias: settings.DISTLOCK[alias]}
    databases = [alias] if "using" in settings.DISTLOCK[alias]["OPTIONS"] else []
    assert deployed(only, *databases) == []


class UnreachableBackend(MinimalBackend):
    """A store that is asked when it is made, as a cluster is."""

    def __init__(self, alias: str) -> None:
        raise LockBackendUnavailable(f"redis://user:{PASSWORD}@host is down")


@distributed_lock("x")
def locked_view(request: Any) -> Any:
    """Stand for a view."""
    raise NotImplementedError


def test_store_that_is_asked_when_it_is_made_is_no_error_of_a_plain_check() -> None:
    """It need not run where a site is built, nor where its databases are checked."""
    store = {"default": {"BACKEND": f"{__name__}.UnreachableBackend"}}
    with override_settings(DISTLOCK=store):
        assert [*check_lock_backends(), *check_databases(databases=["default"])] == []
        urls: Any = (path("", locked_view),)
        with override_settings(ROOT_URLCONF=urls):
            assert [each for each in check_locks() if "locked_view" in str(each.obj)] == []
        assert [*check_deployed_databases(databases=["default"])] == []
        (message,) = check_deployment()
    assert message.id == "distlock.E009"
    assert message.msg == "DISTLOCK['default']: no lock can be acquired: redis://…@host is down"


def test_paused_store_has_no_messages(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator pauses locks during a deployment."""
    paused = Refusal(reason=Pause("", datetime.now(UTC), None).refusal)
    monkeypatch.setattr(scripted, "acquire", lambda *arguments: paused)
    assert deployed({"default": {"BACKEND": "scripted"}}) == []


def test_store_that_is_down_is_asked_nothing_more(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message is enough, and takes one time limit."""
    scripted.answer("acquire", LockBackendUnavailable("is down"))
    monkeypatch.setattr(scripted, "check_deployment", lambda: pytest.fail("asked"))
    assert deployed({"default": {"BACKEND": "scripted"}}) == ["distlock.E009"]


# Time limits


def check_times(ttl: float | None, store_timeout: float) -> list[checks.CheckMessage]:
    """Return the messages for a store with these times."""
    options = {"ttl": ttl, "store_timeout": store_timeout, "using": "locks"}
    with override_settings(DISTLOCK={"jobs": {"BACKEND": POSTGRESQL, "OPTIONS": options}}):
        return [*check_lock_backends()]


@pytest.mark.parametrize(("ttl", "store_timeout"), [(60, 2), (6, 2), (None, 2)])
def test_ttl_leaves_time_for_two_renewals(ttl: float | None, store_timeout: float) -> None:
    """After a third of the ttl comes the first one, which may take the store's time limit."""
    assert check_times(ttl, store_timeout) == []


@pytest.mark.parametrize(("ttl", "store_timeout"), [(5.9, 2), (60, 20.1), (20, 30), (1, 7.7777)])
def test_ttl_that_leaves_no_time_is_warned_of(ttl: float, store_timeout: float) -> None:
    """Either number of the hint, written as it is, is enough."""
    (message,) = check_times(ttl, store_timeout)
    assert message.id == "distlock.W014"
    assert message.msg.startswith(f"DISTLOCK['jobs']: ttl is {ttl:g} and store_timeout")
    longer, shorter = map(float, re.findall(r": ([\d.]+) or", str(message.hint)))
    assert check_times(longer, store_timeout) == check_times(ttl, shorter) == []


# TLS


def test_server_elsewhere_without_tls_is_an_error_of_its_own() -> None:
    """The secret is not shown."""
    options = {"address": "192.0.2.1:7433", "secret": PASSWORD}
    with override_settings(DISTLOCK={"jobs": {"BACKEND": SERVER, "OPTIONS": options}}):
        (message,) = check_lock_backends()
    assert (message.id, message.level) == ("distlock.E006", checks.ERROR)
    assert message.msg == (
        "DISTLOCK['jobs']: 192.0.2.1:7433 is not on this machine: give tls, or tls_ca."
    )
    assert 'Write "tls": True in OPTIONS' in str(message.hint)
    with override_settings(
        DISTLOCK={"jobs": {"BACKEND": SERVER, "OPTIONS": options | {"tls": True}}}
    ):
        assert [*check_lock_backends()] == []
