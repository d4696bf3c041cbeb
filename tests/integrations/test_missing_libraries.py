"""An integration whose library is missing says what to install."""

from __future__ import annotations

import runpy
import sys

import pytest

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("integration", "library", "package"),
    [
        ("debug_toolbar", "debug_toolbar.panels", "django-debug-toolbar"),
        ("dramatiq", "dramatiq", "dramatiq"),
        ("ninja", "ninja", "django-ninja"),
        ("rest_framework", "rest_framework", "djangorestframework"),
        ("rq", "rq.job", "django-rq"),
        ("sentry", "sentry_sdk", "'sentry-sdk>=2.60'"),
    ],
)
def test_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, integration: str, library: str, package: str
) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, library, None)
    name = f"django_distlock.integrations.{integration}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ImportError, match=f"pip install {package}$"):
        runpy.run_module(name)
