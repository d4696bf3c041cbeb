"""Let worker processes take part in a test."""

import json
import os
from pathlib import Path

from django.db import connections

ROOT = Path(__file__).parent.parent


def worker_environment() -> dict[str, str]:
    """Return an environment in which tests.settings leads to this test's databases."""
    return {
        **os.environ,
        **_database_variables(),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": str(ROOT),
    }


def _database_variables() -> dict[str, str]:
    """Tell each database by its present name: that of the test database, inside a test."""
    variables = {}
    for connection in connections.all():
        name = str(connection.settings_dict["NAME"])
        if connection.alias == "default":
            variables["DISTLOCK_TEST_SQLITE"] = name
        else:
            variable = f"DISTLOCK_TEST_{connection.alias.upper()}"
            entry = json.loads(os.environ[variable])
            variables[variable] = json.dumps({**entry, "NAME": name})
    return variables
