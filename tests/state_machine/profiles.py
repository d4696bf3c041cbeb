"""How long the state machines run: a moment in CI, the same each time, or for as long as you like.

`HYPOTHESIS_PROFILE=long pytest tests/state_machine -k redis` runs a hundred times as many steps,
new ones each time, and prints how to repeat a failure. `DISTLOCK_EXAMPLES` sets another number of
runs than 1,000; each has 100 steps.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, cast

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

if TYPE_CHECKING:
    from collections.abc import Callable

COMMON = settings(
    deadline=None,
    database=None,
    suppress_health_check=[*HealthCheck],  # other work on this machine makes it slow
)
SHORT = settings(
    COMMON, derandomize=True, max_examples=10, stateful_step_count=80, phases=[Phase.generate]
)
LONG = settings(
    COMMON,
    max_examples=int(os.environ.get("DISTLOCK_EXAMPLES", "1000")),
    stateful_step_count=100,
    print_blob=True,
)
PROFILE = LONG if os.environ.get("HYPOTHESIS_PROFILE") == "long" else SHORT
FEWER = settings(PROFILE, max_examples=math.ceil(PROFILE.max_examples * 0.4))
"""For stores whose answers take longer."""
SEARCH = settings(SHORT, max_examples=150)
"""For a store with a fault: the search ends with the first example that shows it."""


def run_machine(make: Callable[[], RuleBasedStateMachine], profile: settings) -> None:
    """Run the machine that `make` returns for each example."""
    # Hypothesis takes any callable, but declares that it takes a class.
    factory = cast("type[RuleBasedStateMachine]", make)
    run_state_machine_as_test(factory, settings=profile)
