"""README.md and docs/ list all options of the stores, with their defaults."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

from django_distlock.backends.database import DatabaseBackend
from tests.support.documentation import example

if TYPE_CHECKING:
    from django_distlock.backends.base import BaseLockBackend

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("store", "document", "needed"),
    [
        pytest.param(DatabaseBackend, "../README.md", {}, id="database"),
    ],
)
def test_documented_options_are_those_of_the_store(
    store: type[BaseLockBackend], document: str, needed: dict[str, str]
) -> None:
    """An option that is missing there is never found."""
    documented = example(document, "Settings").DISTLOCK["default"]["OPTIONS"]
    defaults = {
        name: each.default
        for name, each in inspect.signature(store).parameters.items()
        if name not in ("alias", "client")  # a client stands in place of a cache
    }
    assert documented == defaults | needed
