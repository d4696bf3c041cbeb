"""Fixtures that every test can ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin import SURROUNDINGS

if TYPE_CHECKING:
    from tests.servers import Server


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> dict[str, Server]:
    """Return the database servers that run, by name: to be stopped, killed and restarted."""
    return pytestconfig.stash[SURROUNDINGS].servers
