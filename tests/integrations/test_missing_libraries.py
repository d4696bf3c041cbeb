"""An integration whose library is missing says what to install."""

from __future__ import annotations

import importlib
import sys

import pytest

pytestmark = pytest.mark.once
LIBRARIES = {
    "rest_framework": "pip install djangorestframework",
    "ninja": "pip install django-ninja",
}


@pytest.mark.parametrize(("library", "install"), LIBRARIES.items())
def test_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, library: str, install: str
) -> None:
    """In the ImportError of the integration's module, which has the library's name."""
    name = f"django_distlock.integrations.{library}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    for module in [each for each in sys.modules if each.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=install):
        importlib.import_module(name)
