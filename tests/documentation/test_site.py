"""The site can be built: each link leads somewhere, and each page is in the contents."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("sphinx")
pytestmark = pytest.mark.once

from tests.support.paths import ROOT  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `tox run -e docs` does, and return where it is."""
    target = tmp_path_factory.mktemp("site")
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--builder", "html"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(target)],
        env={**os.environ, "PYTHONWARNINGS": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return target


def test_site_has_a_summary_for_language_models(site: Path) -> None:
    """It lists the pages; a second file has their whole text."""
    assert "Tutorial" in (site / "llms.txt").read_text("utf-8")
    assert "acquire_lock" in (site / "llms-full.txt").read_text("utf-8")
