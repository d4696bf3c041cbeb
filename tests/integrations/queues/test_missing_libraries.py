"""An integration without its library says what to install."""

from __future__ import annotations

import runpy
import sys

import pytest

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("module", "library", "package"),
    [("rq", "rq.job", "django-rq"), ("dramatiq", "dramatiq", "dramatiq")],
)
def test_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, library: str, package: str
) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, library, None)
    name = f"django_distlock.integrations.{module}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ImportError, match=f"pip install {package}$"):
        runpy.run_module(name)
