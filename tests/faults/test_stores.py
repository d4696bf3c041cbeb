"""The short form of `python -m tests.faults`: each store lives through faults for some seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.checker import Fault
from tests.faults.missing_servers import skip_if_missing
from tests.faults.nursery import Nursery
from tests.faults.promises import LIMITS
from tests.faults.runner import Scale, check, run, work_of
from tests.faults.stores import STORES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

SHORT = Scale(seconds=12, workers=6, actors=2, pace=0.03, calm=2)
SEED = 2111
"""The same plan each time; what the workers do in it depends on the moment."""
VARIANTS = {"redis_everysec", "redis_memory"}
"""Stores that differ from another one in what a killed server has forgotten."""


@pytest.mark.parametrize("store", sorted(set(STORES) - VARIANTS))
def test_store_keeps_its_promises(
    store: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Under every fault that it can have here, but for what promises.py has said beforehand."""
    environment = STORES[store]
    skip_if_missing(request, environment.needs)
    folder = tmp_path / store
    with environment() as running, Nursery(running) as nursery:
        nursery.finish("prepare", work_of(running, SHORT, tmp_path))
        result = run(running, nursery, SEED, SHORT, folder)
    assert result.is_good, (
        f"{list(map(str, result.violations[:5]))} {result.errors[:1]}; judge it again by"
        f" python -m tests.faults --check {folder}"
    )
    assert result.operations.get("acquire ok", 0) > 0
    assert check(folder).operations == result.operations


def test_no_promise_lets_others_release() -> None:
    """Whatever happens, nobody releases somebody else's lease."""
    assert set(STORES) == set(LIMITS)
    for limits in LIMITS.values():
        for limit in limits.values():
            assert Fault.OWN_RELEASE not in limit.breaks
            assert limit.after > 0
            assert limit.reason.endswith(".")
