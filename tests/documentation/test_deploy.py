"""The script of docs/how-to/deploy.md, as a shell runs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from django.conf import settings

from django_distlock import distributed_lock, lock_backends
from django_distlock.records import LockState
from tests.support.databases import committed
from tests.support.documentation import commands, shown
from tests.support.shop_site import ShopSite
from tests.support.with_lock import settings_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.once, committed]

BROKEN = """
import time
from pathlib import Path
from django.db import migrations

def fail(apps, schema_editor):
    with Path("attempts").open("a") as attempts:
        attempts.write("begun\\n")
    time.sleep(0.2)
    with Path("attempts").open("a") as attempts:
        attempts.write("failed\\n")
    raise ValueError("no such column")

class Migration(migrations.Migration):
    operations = [migrations.RunPython(fail)]
"""
"""A migration that takes long enough for another one to run beside it, if it could."""
LOOK = "python manage.py list_locks --pauses --format json > paused.json"


DEPLOY = "# ... stop the old workers, start the new ones ..."


def documented_script() -> str:
    """Return the script that pauses the locks."""
    [script] = [block for block in shown("how-to/deploy.md", "sh") if "pause_locks" in block]
    assert DEPLOY in script
    return script


def shop(directory: Path) -> ShopSite:
    """Return a site with this process's database and locks."""
    return ShopSite(
        directory,
        DATABASES={"default": settings_of("default")},
        DISTLOCK={"default": settings.DISTLOCK["default"]},
    )


def test_script_pauses_the_locks_until_the_deploy_is_done(tmp_path: Path) -> None:
    """It doesn't wait for a lock that only `min_hold` keeps."""
    script, site = documented_script(), shop(tmp_path)
    with distributed_lock("1234collectPayment", min_hold=600):
        pass
    store = lock_backends["default"]
    kept = store.find("1234collectPayment")
    assert kept is not None
    assert kept.state is LockState.HELD
    done = site.run(script.replace(DEPLOY, LOOK))
    assert done.code == 0, done.output
    assert done.output.startswith("Paused: all locks, until ")
    assert done.output.endswith("No pauses.\n")
    [paused] = json.loads((tmp_path / "paused.json").read_text())
    assert paused["reason"] == "deploy 41"
    assert store.pauses() == []


def test_script_resumes_if_a_lock_is_held_for_too_long(tmp_path: Path) -> None:
    """And deploys nothing."""
    script = documented_script()
    assert "SECONDS > 600" in script
    with distributed_lock("1234collectPayment"):
        done = shop(tmp_path).run(
            script.replace("SECONDS > 600", "SECONDS > -1").replace(DEPLOY, "touch deployed")
        )
    assert done.code == 1
    assert done.output.endswith("Nothing was deployed.\n")
    assert not (tmp_path / "deployed").exists()
    assert lock_backends["default"].pauses() == []


def test_script_deploys_nothing_without_the_pause(tmp_path: Path) -> None:
    """As when the store is down."""
    script = documented_script().replace(DEPLOY, "touch deployed")
    done = shop(tmp_path).run(f"python() {{ return 1; }}\n{script}")
    assert done.code == 1
    assert not (tmp_path / "deployed").exists()


def test_each_pod_tries_a_migration_that_fails(tmp_path: Path) -> None:
    """One after the other, on an empty database; with the exit code of `migrate`."""
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db.sqlite3")}
    site = ShopSite(
        tmp_path,
        DATABASES={"default": database},
        INSTALLED_APPS=["django_distlock", "invoices"],
    )
    migrations = tmp_path / "invoices" / "migrations"
    migrations.mkdir(parents=True)
    (migrations.parent / "__init__.py").touch()
    (migrations / "__init__.py").touch()
    (migrations / "0001_initial.py").write_text(BROKEN)
    migrate, _ = commands(shown("how-to/deploy.md", "console")[0])[0]
    done = site.run(f"({migrate}; echo exit $?) & ({migrate}; echo exit $?) & wait")
    assert done.output.count("exit 1\n") == 2, done.output
    assert (tmp_path / "attempts").read_text().split() == ["begun", "failed"] * 2
