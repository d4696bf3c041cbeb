"""The state machine notices each fault that a store can have."""

from __future__ import annotations

from functools import partial

import pytest

from tests.state_machine.moved_stores import MovedMemory
from tests.state_machine.mutants import MUTANTS, Mutant
from tests.state_machine.profiles import PROFILE, SEARCH, run_machine
from tests.state_machine.store_machine import StoreMachine

pytestmark = pytest.mark.once


def backend(of: type[Mutant]) -> dict[str, dict[str, str]]:
    """Return a setting with this store."""
    return {"mutant": {"BACKEND": f"{of.__module__}.{of.__qualname__}"}}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_fault_is_noticed(mutant: type[Mutant], settings: object) -> None:
    """By an answer that differs from what the model allows."""
    settings.DISTLOCK = backend(mutant)  # type: ignore[attr-defined]
    with pytest.raises(AssertionError):
        run_machine(partial(StoreMachine, MovedMemory("mutant")), SEARCH)


def test_store_without_a_fault_passes(settings: object) -> None:
    """Otherwise the other tests would prove nothing."""
    settings.DISTLOCK = backend(Mutant)  # type: ignore[attr-defined]
    run_machine(partial(StoreMachine, MovedMemory("mutant")), PROFILE)
