"""Locks are read from the database even if a cache of queries is installed."""

import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.processes import worker_environment

CACHALOT = """
import sys
import django
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "cachalot",
        "django_distlock",
    ],
    USE_TZ=True,
)
django.setup()
from django.contrib.admin import site
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django_distlock import acquire_lock, lock_backends
from django_distlock.admin import LockAdmin
from django_distlock.models import Lock, LockPause
with connection.schema_editor() as editor:
    editor.create_model(User)
    editor.create_model(Lock)
    editor.create_model(LockPause)

def seen():
    listed = LockAdmin(Lock, site).get_queryset(None).held()
    held = [*lock_backends["default"].held()]
    return len(listed), listed.count(), len(held), Lock.objects.held().exists()

print(seen())
lease = acquire_lock("1234collectPayment")
print(seen())
lease.release()
print(seen())
with CaptureQueriesContext(connection) as queries:
    User.objects.count(), User.objects.count()
print(len(queries))
"""


def test_query_cache_does_not_answer_for_locks(tmp_path: Path) -> None:
    """A store's statements bypass django-cachalot, so its cache would never be invalidated."""
    process = subprocess.run(
        [sys.executable, "-c", CACHALOT, str(tmp_path / "file.sqlite3")],
        cwd=ROOT,
        env=worker_environment() | {"DJANGO_SETTINGS_MODULE": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    nothing, one = "(0, 0, 0, False)", "(1, 1, 1, True)"
    # The cache works: it answers one of two queries about users.
    assert process.stdout.splitlines() == [nothing, one, nothing, "1"], process.stderr
