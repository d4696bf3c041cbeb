"""Locks in a site of two tenants, as docs/integrations/django-tenants.md describes it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.children import tied
from tests.support.paths import ROOT
from tests.support.processes import worker_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Server

pytest.importorskip("django_tenants")

pytestmark = [pytest.mark.once, pytest.mark.needs("postgresql")]
SHARED = 'Write "django_distlock" in SHARED_APPS, and run python manage.py migrate_schemas --shared'
RUN = "import django; django.setup(); import tests.support.tenants.site"


@pytest.fixture(scope="module")
def found(servers: dict[str, Server]) -> Iterator[dict[str, Any]]:
    """Run the site, whose settings are others than the tests', in a database of its own."""
    with servers["postgresql"].connect() as session:
        session.execute("CREATE DATABASE tenants")
        try:
            site = subprocess.run(
                tied([sys.executable, "-c", RUN]),
                cwd=ROOT,
                env=worker_environment()
                | {"DJANGO_SETTINGS_MODULE": "tests.support.tenants.settings"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert site.returncode == 0, site.stderr
            yield json.loads(site.stdout)
        finally:
            session.execute("DROP DATABASE tenants WITH (FORCE)")


def test_locks_are_kept_in_the_shared_schema(found: dict[str, Any]) -> None:
    """Whatever schema is set, only the first request for a semaphore is granted."""
    assert found["tables"] == ["public"]
    assert found["one_lock_for_all"] == [True, False, False, True]


def test_release_in_one_schema_wakes_a_waiter_in_another(found: dict[str, Any]) -> None:
    """Long before the timeout."""
    assert found["waiting_in_another_tenant"] > 300


def test_commit_is_guarded_whichever_schema_is_set(found: dict[str, Any]) -> None:
    """The work in both schemas is committed or rolled back."""
    assert found["guarded_commits"] == [1, 1, 1, 1]


def test_tenants_exclude_each_other_unless_the_semaphore_names_the_schema(
    found: dict[str, Any],
) -> None:
    """As the documented views and the documented function show."""
    assert found["documented_views"] == {
        "/collect/1234/": [409, 200],
        "/collect/7/": [200, 200],
        "/report/": [409, 409],
    }
    assert found["documented_function"] == ["LockNotAcquired", "refunded"]


def test_operators_see_the_locks_of_all_tenants(found: dict[str, Any]) -> None:
    """In the admin and in commands, with their history."""
    assert found["operators"] == [True, True]


def test_checks_find_nothing_in_the_documented_setup(found: dict[str, Any]) -> None:
    """Nor while a tenant's schema is set, in which django-tenants migrates no table of locks."""
    assert "distlock" not in "".join(found["checks"])


def test_site_with_the_app_in_its_tenant_apps_is_told_what_to_do(found: dict[str, Any]) -> None:
    """By the checks, and by the error."""
    told = found["tenant_app"]
    for when in ("check", "check in a tenant"):
        assert "distlock.W012" in told[when]
        assert SHARED in told[when]
    assert told["error"].endswith(f"{SHARED}.")
