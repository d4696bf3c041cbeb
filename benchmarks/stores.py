"""A database server of our own, as one for real data is set, and Django on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command

from tests import servers

STARTERS = {"postgresql": servers.start_postgresql, "mariadb": servers.start_mariadb}
DATABASES = [*STARTERS, "sqlite"]


@contextmanager
def django_on(database: str) -> Iterator[None]:
    """Start the server, configure Django with it, and migrate."""
    if database == "sqlite":
        with TemporaryDirectory() as directory:
            _configure({"ENGINE": "django.db.backends.sqlite3", "NAME": f"{directory}/locks"})
            yield
        return
    with STARTERS[database](durable=True) as server:
        _configure(server.database_settings)
        yield


def _configure(database: dict[str, Any]) -> None:
    settings.configure(
        DATABASES={"default": database},
        INSTALLED_APPS=["django_distlock", "db_mutex"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)
