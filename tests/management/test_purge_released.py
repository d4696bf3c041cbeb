"""`manage.py clear_stale_locks --purge-released`: which locks it deletes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError

from django_distlock import acquire_lock
from django_distlock.fields import to_microseconds
from django_distlock.models import Lock
from tests.support.databases import on_each_database
from tests.support.stale_locks import HOUR, found, make_held, make_released, make_stale, run

pytestmark = pytest.mark.django_db(databases="__all__")


@on_each_database
def test_locks_released_longer_ago_than_the_age_are_deleted(alias: str) -> None:
    """Neither younger ones, nor those that this run released, nor held ones."""
    make_released(alias, "old", age=25 * HOUR)
    make_released(alias, "young", age=HOUR)
    make_stale(alias, "stale")
    make_held(alias, "held")
    output = run(alias, "--purge-released", "1d")
    assert output.splitlines()[-2:] == [
        "old: unknown holder, acquired 1d 2h ago, released 1d 1h ago",
        "1 released lock deleted.",
    ]
    assert found(Lock.objects.using(alias)) == ["held", "stale", "young"]


@pytest.mark.parametrize(
    ("age", "left"),
    [
        ("1m", []),
        ("61m", ["minutes"]),
        ("3600s", ["minutes"]),
        ("3h", ["hours", "minutes"]),
        ("1d", ["hours", "minutes"]),
        ("3d", ["days", "hours", "minutes"]),
    ],
)
def test_age_may_be_in_any_unit(age: str, left: list[str]) -> None:
    """Seconds, minutes, hours or days."""
    make_released("default", "minutes", age=timedelta(0))
    make_released("default", "hours", age=2 * HOUR)
    make_released("default", "days", age=48 * HOUR)
    run("default", f"--purge-released={age}")
    assert found(Lock.objects.using("default")) == left


@on_each_database
def test_nothing_is_deleted_unless_asked_for(alias: str) -> None:
    """Released locks stay, and the output doesn't mention deleting."""
    make_released(alias, "old", age=1000 * HOUR)
    assert "deleted" not in run(alias)
    assert found(Lock.objects.using(alias)) == ["old"]


@pytest.mark.parametrize("age", ["", "1", "1w", "-1d", "1.5h", "soon", "1d 2h"])
def test_bad_age_is_a_clear_error(age: str) -> None:
    """It names the option and shows a right value, and nothing is released either."""
    make_stale("default", "stale")
    with pytest.raises(CommandError) as caught:
        run("default", f"--purge-released={age}")
    message = f"--purge-released: {age!r} is not a duration; write 90s, 15m, 12h or 1d."
    assert message in str(caught.value)
    assert found(Lock.objects.using("default").stale()) == ["stale"]


@on_each_database
def test_tokens_never_go_back_after_a_purge(alias: str) -> None:
    """Without the row the next token is the clock's, which has passed the deleted one."""
    first = acquire_lock("report", backend=alias)
    assert first is not None
    assert first.token is not None
    first.release()
    Lock.objects.using(alias).update(expires_at=datetime.now(UTC) - HOUR)
    run(alias, "--purge-released=1m")
    assert found(Lock.objects.using(alias)) == []
    second = acquire_lock("report", backend=alias)
    assert second is not None
    assert second.token is not None
    assert second.token > first.token


@on_each_database
def test_lock_whose_token_is_ahead_of_the_clock_is_kept(alias: str) -> None:
    """After a backward step of the clock, only the row has the last token."""
    ahead = to_microseconds(datetime.now(UTC) + HOUR)
    make_released(alias, "ahead", token=ahead)
    make_released(alias, "behind")
    assert "1 released lock deleted." in run(alias, "--purge-released=1h")
    lease = acquire_lock("ahead", backend=alias)
    assert lease is not None
    assert lease.token == ahead + 1
