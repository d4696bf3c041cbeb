"""The tests that docs/how-to/test.md shows, as those of a site, with the reports that it shows."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from tests.support.documentation import DOCUMENTS
from tests.support.paths import ROOT
from tests.support.pytest_runs import run_pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

PAGE = (DOCUMENTS / "how-to/test.md").read_text("utf-8")
SHOP = ROOT / "tests" / "documentation" / "shop"
BLOCK = re.compile(r"^```python\n(# (\S+)\n.*?)^```$", re.MULTILINE | re.DOTALL)
REST = {
    "shop/__init__.py": "",
    **{
        f"shop/{name}.py": (SHOP / f"{name}.py")
        .read_text("utf-8")
        .replace("tests.documentation.shop", "shop")
        for name in ("models", "payments")
    },
    "shop/urls.py": """
from django.urls import path
from shop.views import collect

urlpatterns = [path("customers/<int:customer_id>/collect", collect)]
""",
    "shop/settings.py": """
SECRET_KEY = "not a secret"
USE_TZ = True
ROOT_URLCONF = "shop.urls"
INSTALLED_APPS = ["django_distlock", "shop"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "ATOMIC_REQUESTS": True
    },
}
""",
    "pytest.ini": """
[pytest]
DJANGO_SETTINGS_MODULE = shop.settings
pythonpath = .
filterwarnings = error
python_files = test_*.py tests.py
""",
}


def documented_files() -> dict[str, str]:
    """Return the files whose parts the page shows, each with its name in the first line."""
    parts = defaultdict(list)
    for part, name in BLOCK.findall(PAGE):
        parts[name].append(part)
    assert PAGE.count("```python\n") == sum(map(len, parts.values()))
    return {name: "\n\n".join(each) for name, each in parts.items()}


def test_documented_tests(tmp_path: Path) -> None:
    """All pass, except for two that fail by the reports on the page."""
    for name, text in {**REST, **documented_files()}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    problems, output = run_pytest(tmp_path, plugins=("pytest_django.plugin",), cwd=tmp_path)
    assert len(problems) == PAGE.count("def test_"), output
    failed = {name: problem for name, problem in problems.items() if problem}
    reports = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert [*failed] == ["test_export", "test_ship"], output
    for problem, report in zip(failed.values(), reports, strict=True):
        assert problem.endswith(report.rstrip())
