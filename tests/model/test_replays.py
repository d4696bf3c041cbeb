"""Runs of the model, repeated on real stores: it is of what they do, and so are its premises."""

from __future__ import annotations

import pytest

from tests.app.models import Counter
from tests.support.databases import committed

from .killed_server_replay import KilledServerReplay
from .lock_server_replay import LockServerReplay
from .postgresql_replay import (
    ALIAS,
    ModelledBackend,
    PostgreSQLReplay,
    ReleasesAnybodys,
    WithoutRowLock,
)
from .premises import CLOCK_FORWARD, GRACE, OWN_RELEASE, ROW_LOCK, TOKENS
from .replay import Difference
from .spin import Step, counterexample, random_run

pytestmark = [pytest.mark.needs("spin"), pytest.mark.once]

needs_postgresql = pytest.mark.needs("postgresql")


def actions(steps: list[Step]) -> list[str]:
    """Return what was done, in order."""
    return [step.action for step in steps]


@pytest.mark.parametrize("seed", range(1, 7))
def test_lock_server_does_in_random_runs_what_the_model_says(seed: int) -> None:
    """Each step has the same outcome, through crashes, restarts and steps of the wall clock."""
    steps = random_run(seed, 20_000, "-DLOCK_SERVER", "-DSEQUENTIAL")
    assert len(steps) > 500
    assert {"acquire", "renew", "release", "take", "crash", "force_release"} <= {*actions(steps)}
    assert LockServerReplay().follow(steps) is None


@committed
@needs_postgresql
@pytest.mark.parametrize("seed", [1, 3])
def test_postgresql_does_in_random_runs_what_the_model_says(seed: int) -> None:
    """Each step has the same outcome, in the queue, under the guard, and when rows are purged."""
    steps = random_run(seed, 6_000, "-DDATABASE", "-DSEQUENTIAL")
    assert len(steps) > 150
    assert {"acquire", "renew", "release", "offer_free", "guard", "purge"} <= {*actions(steps)}
    with PostgreSQLReplay() as replay:
        assert replay.follow(steps) is None


@committed
@needs_postgresql
def test_without_own_release_two_clients_hold_a_lock() -> None:
    """A paused client's late release takes the lock from its successor."""
    steps = counterexample(*OWN_RELEASE.flags)
    assert actions(steps)[-2:] == ["release", "acquire"]
    with PostgreSQLReplay(ReleasesAnybodys) as replay:
        assert replay.follow(steps) is None
        assert replay.holders(0) == [1, 2]
    with PostgreSQLReplay() as replay:
        assert replay.follow(steps) == Difference(steps[-2], "lost")
        assert replay.holders(0) == [2]


@committed
@needs_postgresql
def test_when_the_stores_clock_steps_forward_two_clients_hold_a_lock() -> None:
    """The lease ends for the store before it ends for its holder."""
    steps = counterexample(*CLOCK_FORWARD.flags)
    assert "clock_step" in actions(steps)
    with PostgreSQLReplay() as replay:
        assert replay.follow(steps) is None
        assert replay.holders(0) == [1, 2]
    with PostgreSQLReplay() as replay:
        steps = [step for step in steps if step.action != "clock_step"]
        assert replay.follow(steps) == Difference(steps[-1], "refused")
        assert replay.holders(0) == [1]


@committed
@needs_postgresql
def test_without_the_guards_row_lock_a_commit_comes_after_a_successors_grant() -> None:
    """The lease ends between the guard and the commit."""
    steps = counterexample(*ROW_LOCK.flags)
    assert actions(steps)[-2:] == ["acquire", "commit"]
    with PostgreSQLReplay(WithoutRowLock) as replay:
        assert replay.follow(steps) is None
        assert replay.holders(0) == [2]
        assert replay.committed == [1]
        assert Counter.objects.using(ALIAS).get().value == 1
    with PostgreSQLReplay(ModelledBackend) as replay:
        assert replay.follow(steps) == Difference(steps[-2], "refused")
        assert replay.follow(steps[-1:]) is None
        assert replay.holders(0) == []


@pytest.mark.needs("lock_server")
def test_with_a_grace_period_below_the_ttl_two_clients_hold_a_lock() -> None:
    """After a crash, when the state file is lost and the new server has a shorter --max-ttl."""
    steps = counterexample(*GRACE.flags)
    assert {"crash", "restart"} < {*actions(steps)}
    with KilledServerReplay(grace=1) as replay:
        assert replay.follow(steps) is None
        assert replay.holders(0) == [1, 2]
    with KilledServerReplay() as replay:
        assert replay.follow(steps) == Difference(steps[-1], "refused")
        assert replay.holders(0) == [1]
        assert replay.follow([Step(1, "renew", 0, "held", 2)]) is None


@committed
@needs_postgresql
def test_token_that_is_lost_while_the_clock_is_set_back_is_followed_by_a_lower_one() -> None:
    """As the promise says; one of the two alone does no harm."""
    steps = counterexample(*TOKENS.flags)
    assert {"set_back", "purge"} < {*actions(steps)}
    with PostgreSQLReplay() as replay:
        assert replay.follow(steps) is None
        first, second = replay.tokens[0]
        assert second <= first
    released = Step(1, "release", 0, "released", 0)
    tick, set_back, purge = (
        steps[actions(steps).index(name)] for name in ("tick", "set_back", "purge")
    )
    for mishap in (set_back, purge):
        with PostgreSQLReplay() as replay:
            assert replay.follow([steps[0], released, tick, mishap, steps[-1]]) is None
            first, second = replay.tokens[0]
            assert second > first
