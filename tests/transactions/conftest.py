"""What the tests of transactions ask for."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def stores_have_time(patient_stores: None) -> None:
    """These tests are not about how long a store takes to answer."""
