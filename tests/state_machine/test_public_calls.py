"""The public calls keep the promise, whatever code does with them in whatever order."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.state_machine.moved_stores import MovedMemory, moved_store
from tests.state_machine.mutants import ConstantToken
from tests.state_machine.profiles import PROFILE, SEARCH, run_machine
from tests.state_machine.public_machine import PublicMachine
from tests.support.databases import committed

if TYPE_CHECKING:
    from tests.support.moved_clock import MovedClock

pytestmark = [committed, pytest.mark.once]


@pytest.mark.parametrize(
    "alias", ["memory", pytest.param("redis", marks=pytest.mark.needs("redis"))]
)
def test_public_calls_keep_the_promise(
    alias: str, request: pytest.FixtureRequest, moved_clock: MovedClock
) -> None:
    """Held, lost and released are what the model says; the store knows the same."""
    with moved_store(alias, request) as moved:
        run_machine(partial(PublicMachine, moved, moved_clock), PROFILE)
        moved.empty([])


def test_constant_token_is_noticed_by_public_calls(settings: Any, moved_clock: MovedClock) -> None:
    """Otherwise the other test would prove nothing."""
    settings.DISTLOCK = {"mutant": {"BACKEND": f"{ConstantToken.__module__}.ConstantToken"}}
    with pytest.raises(AssertionError):
        run_machine(partial(PublicMachine, MovedMemory("mutant"), moved_clock), SEARCH)
