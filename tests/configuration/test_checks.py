"""The system checks' messages about DISTLOCK."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from django.core import checks
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_distlock.checks import check_lock_backends
from tests.app.backends import MinimalBackend
from tests.support.databases import on_each_database
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# For the checks of models, Django asks each database what it can store.
connected = pytest.mark.django_db(databases="__all__")
DATABASE = "django_distlock.backends.database.DatabaseBackend"


class WarningBackend(MinimalBackend):
    """A store whose check returns a warning."""

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        return [checks.Warning(f"{self.alias} {sorted(kwargs)}", id="other.W001")]


def messages(**distlock: Any) -> list[checks.CheckMessage]:
    """Return the checks' messages about this DISTLOCK."""
    with override_settings(DISTLOCK=distlock):
        return [*check_lock_backends(app_configs=None, databases=None)]


def database(**options: Any) -> dict[str, Any]:
    return {"BACKEND": DATABASE, "OPTIONS": options}


@connected
@on_each_database
def test_tests_settings_are_clean(
    alias: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`manage.py check` has no messages, not even warnings."""
    monkeypatch.setattr("django_distlock.views.lock_checks.like_f_strings", {})  # of other tests
    call_command("check", databases=[alias], fail_level="DEBUG")
    assert "no issues" in capsys.readouterr().out


@connected
def test_check_is_registered() -> None:
    """`manage.py check` runs it."""
    with (
        override_settings(DISTLOCK={"jobs": {}}),
        pytest.raises(CommandError, match=r"distlock\.E001.*DISTLOCK\['jobs'\]: must be a dict"),
    ):
        call_command("check", databases=["default"])


def test_good_settings_have_no_messages() -> None:
    """A store on an existing database."""
    assert messages(default=database(), jobs=database(ttl=None)) == []


def test_setting_other_than_a_dict_is_one_error() -> None:
    """Then there are no aliases to check."""
    with override_settings(DISTLOCK=["default"]):
        (message,) = check_lock_backends()
    assert (message.id, message.msg) == ("distlock.E001", "DISTLOCK: must be a dict of aliases.")
    assert str(message.hint).startswith("Correct that. A store is written as ")


def test_each_alias_that_cannot_be_made_is_an_error() -> None:
    """One wrong alias doesn't hide another."""
    found = messages(
        one=database(timeout=5), good=database(), two={"BACKEND": "nowhere.Backend"}, three={}
    )
    assert [message.id for message in found] == ["distlock.E001"] * 3
    assert all(isinstance(message, checks.Error) for message in found)
    starts = [str(message.msg).partition(": ")[0] for message in found]
    assert starts == ["DISTLOCK['one']", "DISTLOCK['two']", "DISTLOCK['three']"]


def test_database_that_is_not_configured_is_an_error() -> None:
    """The message names the configured ones."""
    (message,) = messages(jobs=database(using="nowhere"))
    assert (message.id, message.level) == ("distlock.E001", checks.ERROR)
    assert message.msg.startswith("DISTLOCK['jobs']: there is no database 'nowhere'; DATABASES has")


MISSING_APP = """
import django
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3"}})
django.setup()
import sys
from django.core.management import CommandError, call_command
from django_distlock import InvalidLockBackend, lock_backends
try:
    lock_backends["default"]
except InvalidLockBackend as error:
    print(error)
call_command("check", stderr=sys.stdout)
settings.DISTLOCK = {"default": {"BACKEND": "%s"}}
lock_backends.reset()
try:
    call_command("check")
except CommandError as error:
    print(error)
"""


def test_missing_app_is_an_error() -> None:
    """Without it in INSTALLED_APPS there is no table; `manage.py check` says so.

    Without DISTLOCK it only warns: the code that imports the package may not lock at all.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": ""}
    output = subprocess.run(
        [sys.executable, "-c", MISSING_APP % DATABASE],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output.startswith(f"DISTLOCK['default']: could not import BACKEND '{DATABASE}': ")
    at_use, _, at_check = output.partition("\n")
    assert "INSTALLED_APPS" in at_use
    warning, _, error = at_check.partition("SystemCheckError")
    assert "distlock.W001" in warning
    assert "distlock.E001" in error
    assert at_use in error


SITE = """
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3"}},
    ROOT_URLCONF="urls",
    INSTALLED_APPS=["shop"],
    **SETTINGS,
)
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "check"])
"""


def check_site(
    folder: Path, importing: str, settings: dict[str, Any], *options: str
) -> tuple[str, str]:
    """Return the output of `manage.py check` for a site of which one module imports the package."""
    (folder / "shop").mkdir()
    for module in ("shop/__init__.py", "shop/models.py", "shop/views.py"):
        (folder / module).touch()
    (folder / "urls.py").write_text("import shop.views\nurlpatterns = []\n")
    (folder / importing).write_text(f"import django_distlock\n{(folder / importing).read_text()}")
    output = subprocess.run(
        [sys.executable, *options, "-c", SITE.replace("SETTINGS", repr(settings))],
        env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "DJANGO_SETTINGS_MODULE": ""},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return output.stdout, output.stderr


@pytest.mark.parametrize(
    "importing", ["shop/__init__.py", "shop/models.py", "shop/views.py", "urls.py"]
)
def test_missing_app_is_reported_whatever_imports_the_package(
    tmp_path: Path, importing: str
) -> None:
    """Views are imported by a check, after Django has listed the checks to run."""
    _, output = check_site(tmp_path, importing, {})
    assert output.count("distlock.W001") == 1
    assert "INSTALLED_APPS: django_distlock is imported, but not in there" in output
    assert "Traceback" not in output


def test_late_import_is_reported_where_it_happens(tmp_path: Path) -> None:
    """With file and line, like Python's warnings."""
    _, output = check_site(tmp_path, "shop/views.py", {})
    assert f"{tmp_path}/shop/views.py:1: RuntimeWarning: INSTALLED_APPS: " in output


def test_late_import_is_reported_if_distlock_needs_the_table(tmp_path: Path) -> None:
    """The check of DISTLOCK is registered too late, then."""
    distlock = {5: None, "jobs": {"BACKEND": DATABASE}}
    _, output = check_site(tmp_path, "shop/views.py", {"DISTLOCK": distlock})
    assert "RuntimeWarning: INSTALLED_APPS: DISTLOCK['jobs'] keeps locks in a table" in output
    assert "(distlock.E001)" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "settings",
    [
        {"SILENCED_SYSTEM_CHECKS": ["distlock.W001"]},
        {"DISTLOCK": {"default": {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}}},
    ],
)
@pytest.mark.parametrize("importing", ["shop/models.py", "shop/views.py"])
def test_site_without_the_app_on_purpose_gets_no_warning(
    tmp_path: Path, importing: str, settings: dict[str, Any]
) -> None:
    """It doesn't need the package's table, or silences the check."""
    _, output = check_site(tmp_path, importing, settings, "-W", "error")
    assert "W001" not in output
    assert "Traceback" not in output


def test_store_has_its_own_checks() -> None:
    """A store's messages are passed on, and it gets the arguments of `check`."""
    backend = {"BACKEND": f"{__name__}.WarningBackend"}
    (message,) = messages(mine=backend)
    assert message == checks.Warning("mine ['app_configs', 'databases']", id="other.W001")


def test_store_without_checks_has_no_messages() -> None:
    """The base class has nothing to check, and asks no server."""
    assert MinimalBackend("mine").check() == []
    assert MinimalBackend("mine").check_deployment() == []
