"""The documentation's site `shop` in a folder, for commands that are processes of their own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.children import run_line
from tests.support.paths import ROOT

MANAGE = """
import json
import sys
from django.conf import settings
from django.core.management import execute_from_command_line

settings.configure(**json.load(open("settings.json")))
execute_from_command_line(sys.argv)
"""
SETTINGS: dict[str, Any] = {
    "SECRET_KEY": "not a secret",
    "USE_TZ": True,
    "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
    "INSTALLED_APPS": ["django_distlock"],
}


class Ended(NamedTuple):
    """How a command line ended, and what it printed."""

    code: int
    output: str


class ShopSite:
    """A folder with a manage.py."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        (directory / "manage.py").write_text(MANAGE)
        self.configure(**settings)
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

    def configure(self, **settings: Any) -> None:
        """Replace the settings, for processes that start from now on."""
        (self.directory / "settings.json").write_text(json.dumps(SETTINGS | settings))

    def run(self, command: str, **variables: str) -> Ended:
        """Run a line as a shell does."""
        done = run_line(command, self.directory, self.environment | variables)
        return Ended(done.returncode, done.stdout)

    def run_python(self, program: str) -> Ended:
        """Run a program in a process of the site."""
        (self.directory / "program.py").write_text(program)
        return self.run("python manage.py shell --no-imports < program.py")
