"""The admin's pages of locks beside packages that give the admin another look."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT


@pytest.mark.parametrize("theme", ["unfold", "jazzmin"])
def test_pages_work_with_another_look(theme: str) -> None:
    """Each page answers, with all of our controls, script and styles."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.support.themed_pages"],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.support.themed_settings",
            "DISTLOCK_TEST_THEME": theme,
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    seen = {
        name: (status, {*parts}) for name, [status, *parts] in json.loads(process.stdout).items()
    }
    assets = {"admin.css", "refresh.js"}
    searchable = {"Search", "Pause updates"}
    assert {name: status for name, (status, _) in seen.items()} == dict.fromkeys(seen, 200)
    assert {*searchable, "Force-release", *assets} <= seen["list"][1]
    assert {"Pause updates", "Force-release", *assets} <= seen["lock"][1]
    assert {"Force-release", *assets} <= seen["confirmation"][1]
    assert {*searchable, "Force-released", *assets} <= seen["released"][1]
    assert "Force-released" in seen["log"][1]
