"""The time and memory that a Django process spends on having the package among its apps."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.contenders import MUTEX, OURS, PGLOCK
from benchmarks.report.figures import Figure

from .contention import MILLISECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .turns import Effort

PACKAGE = "package"
MEMORY = "MiB"
BASIC = "Django alone"
APPS = {
    BASIC: [],
    OURS: ["django_distlock"],
    PGLOCK: ["pgactivity", "pglock"],
    MUTEX: ["db_mutex"],
}
SCRIPT = """
import json, sys, time
from django.conf import settings
started = time.perf_counter()
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", *json.loads(sys.argv[1])],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "unused"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
import django
django.setup()
taken = time.perf_counter() - started
import psutil
print(json.dumps([1000 * taken, psutil.Process().memory_info().rss / 2**20]))
"""


def measure(stores: Sequence[str], effort: Effort) -> list[Figure]:
    """Measure django.setup() with each library's app, each time in a new process."""
    values: dict[tuple[str, str], list[float]] = {
        (library, unit): [] for unit in (MILLISECONDS, MEMORY) for library in APPS
    }
    for number in range(max(2, effort.rounds // 2) + 1):
        for library in random.sample(list(APPS), len(APPS)):
            command = [sys.executable, "-c", SCRIPT, json.dumps(APPS[library])]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            if number:
                for unit, value in zip(
                    (MILLISECONDS, MEMORY), json.loads(done.stdout), strict=True
                ):
                    values[library, unit].append(value)
    return [
        Figure(PACKAGE, "", library, "django.setup()", unit, found)
        for (library, unit), found in values.items()
    ]
