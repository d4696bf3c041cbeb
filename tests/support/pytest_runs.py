"""Runs of pytest, and of Django's test runner, as a site has them: in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PLUGINS = ("xdist.plugin", "pytest_django.plugin", "anyio.pytest_plugin")
SETTINGS = "tests.support.kit_project.project_settings"
INI = "tests/support/kit_project/pytest.ini"


def run_python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Python with the package of this repository, without this run's settings and plugins."""
    kept = {name: value for name, value in os.environ.items() if "DJANGO" not in name}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def run_pytest(
    directory: Path, *arguments: str, plugins: tuple[str, ...] = (), cwd: Path = ROOT
) -> tuple[Mapping[str, str], str]:
    """Run pytest with the package's plugin and these; return each test's problem, and the output.

    The problem is an empty text where there is none. What is written goes into the directory.
    """
    report = directory / "report.xml"
    loaded = [f"-p{plugin}" for plugin in (*plugins, "django_distlock_pytest")]
    options = ["-pno:cacheprovider", "--noconftest", f"--rootdir={cwd}", f"--junitxml={report}"]
    done = run_python("-m", "pytest", *loaded, *options, *arguments, cwd=cwd)
    assert report.is_file(), done.stderr
    problems: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        texts = [f"{problem.get('message')}\n{problem.text}" for problem in case]
        name = case.get("name", "")
        problems[name] = "\n".join([*filter(None, [problems.get(name)]), *texts])
    return problems, done.stdout
