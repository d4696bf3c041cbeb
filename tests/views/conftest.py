"""Fixtures for the tests of views."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import connections
from django.test import override_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.scripted_store import ScriptedBackend


@pytest.fixture
def no_database(scripted: ScriptedBackend) -> Iterator[None]:
    """Avoid databases: middleware needs one, and so does the end of a request with a connection."""
    connections.close_all()  # left open by earlier tests
    with override_settings(MIDDLEWARE=[]):
        yield
