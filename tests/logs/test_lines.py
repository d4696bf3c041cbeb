"""Which lines tell of a lock's life, in which logger, at which level, with which fields."""

from __future__ import annotations

import json
import logging
import logging.config
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from django_distlock import (
    LockBackendUnavailable,
    LockLost,
    LockNotAcquired,
    aacquire_lock,
    acquire_lock,
    arelease_lock,
    distributed_lock,
    lock_backends,
    skip,
)
from django_distlock.leases.request import describe_holder
from django_distlock.records import Refusal
from tests.support.concurrency import run
from tests.support.holders import acquire

if TYPE_CHECKING:
    from tests.support.moved_clock import MovedClock
    from tests.support.scripted_store import ScriptedBackend

LOCKS, LEASES, VIEWS = (f"django_distlock.{room}" for room in ("locks", "leases", "views"))
HOLDER = "export (web-1 pid 7 MainThread)"

pytestmark = pytest.mark.usefixtures("stopped_clock")


@pytest.fixture
def debug(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Log everything."""
    caplog.set_level(logging.DEBUG, "django_distlock")
    return caplog


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    """Return logger, level and text of each line."""
    return [(each.name, each.levelname, each.getMessage()) for each in caplog.records]


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a line that the package added."""
    plain = vars(logging.LogRecord("", 0, "", 0, "", None, None))
    added = {name: value for name, value in vars(record).items() if name not in plain}
    return {name: value for name, value in added.items() if name not in {"message", "asctime"}}


def test_grant_and_release_are_lines_for_debugging(
    scripted: ScriptedBackend, moved_clock: MovedClock, debug: pytest.LogCaptureFixture
) -> None:
    """With the times, and the token that tells one grant from another."""
    scripted.answer("acquire", lambda: moved_clock.advance(0.25))
    lease = acquire("default", label="export")
    moved_clock.advance(3)
    lease.release()
    name = "The lease on '1234collectPayment'"
    assert lines(debug) == [
        (LOCKS, "DEBUG", f"{name} was granted after 0.250 s, with token 1."),
        (LEASES, "DEBUG", f"{name}, with token 1, was released after 3.000 s."),
    ]
    granted, released = map(fields, debug.records)
    same = {"semaphore": "1234collectPayment", "backend": "default", "token": 1}
    assert granted == same | {"holder": lease.holder, "waited": pytest.approx(0.25)}
    assert released == same | {"holder": lease.holder, "held_for": pytest.approx(3)}
    assert lease.holder.startswith("export (")


def test_async_code_has_the_same_lines(
    scripted: ScriptedBackend, debug: pytest.LogCaptureFixture
) -> None:
    """Grant, refusal, release."""

    async def take_turns() -> None:
        lease = await aacquire_lock("1234collectPayment")
        assert lease
        assert await aacquire_lock("1234collectPayment") is None
        await arelease_lock(lease)

    run(take_turns())
    assert [(name, level) for name, level, _ in lines(debug)] == [
        (LOCKS, "DEBUG"),
        (LOCKS, "DEBUG"),
        (LEASES, "DEBUG"),
    ]


def test_line_that_is_kept_keeps_no_lease(
    scripted: ScriptedBackend, debug: pytest.LogCaptureFixture
) -> None:
    """Otherwise a lease that nobody uses any more would be renewed for ever."""
    lease = ref(acquire("default", renew=False))
    held = lease()
    assert held
    held.release()
    del held
    assert len(debug.records) == 2
    assert lease() is None


def test_refusal_says_who_holds_the_lock(
    scripted: ScriptedBackend, debug: pytest.LogCaptureFixture
) -> None:
    """As LockNotAcquired does."""
    scripted.owner, scripted.refusal = "somebody else", Refusal(HOLDER)
    assert acquire_lock("1234collectPayment") is None
    text = "'1234collectPayment' was refused after 0.000 s. Somebody else holds"
    assert lines(debug) == [(LOCKS, "DEBUG", f"{text} '1234collectPayment': {HOLDER}.")]
    assert fields(debug.records[0]) == {
        "semaphore": "1234collectPayment",
        "backend": "default",
        "waited": 0,
        "holder": HOLDER,
        "reason": "",
        "refused": describe_holder(),
    }


def test_wait_over_a_second_is_worth_a_line(
    scripted: ScriptedBackend, moved_clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Granted or refused at last."""
    caplog.set_level(logging.INFO, "django_distlock")
    for seconds in (0.5, 1.5):
        scripted.answer("acquire", lambda seconds=seconds: moved_clock.advance(seconds))
        acquire("default").release()
    scripted.owner = "somebody else"
    for seconds in (0.5, 1.5):
        scripted.answer("acquire", lambda seconds=seconds: moved_clock.advance(seconds))
        assert acquire_lock("1234collectPayment") is None
    granted, refused = lines(caplog)
    assert granted[:2] == refused[:2] == (LOCKS, "INFO")
    assert "was granted after 1.500 s" in granted[2]
    assert "was refused after 1.500 s" in refused[2]


def view(request: Any) -> HttpResponse:
    """Answer."""
    return HttpResponse()


@pytest.mark.parametrize("how", ["skip", "answer", "on_conflict", "async"])
def test_skipped_call_is_worth_a_line(
    scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Nothing else says that work was not done."""
    caplog.set_level(logging.INFO, "django_distlock")
    scripted.owner, scripted.refusal = "somebody else", Refusal(reason="paused: deploy")
    if how == "async":

        @distributed_lock("1234collectPayment", on_conflict=skip)
        async def task() -> None:
            raise NotImplementedError

        run(task())
        name = f"{__name__}.{task.__qualname__}"
    else:
        terms: dict[str, Any] = {} if how == "skip" else {"http": True}
        if how != "answer":
            terms["on_conflict"] = skip if how == "skip" else view
        distributed_lock("1234collectPayment", **terms)(view)(RequestFactory().get("/"))
        name = f"{__name__}.view"
    assert lines(caplog) == [
        (VIEWS, "INFO", f"{name} was not called. '1234collectPayment' is paused: deploy.")
    ]
    assert fields(caplog.records[0])["reason"] == "paused: deploy"


def test_call_that_raises_is_no_line(
    scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """The error says it."""
    caplog.set_level(logging.INFO, "django_distlock")
    scripted.owner = "somebody else"
    with pytest.raises(LockNotAcquired):
        distributed_lock("1234collectPayment")(view)(None)
    assert lines(caplog) == []


def test_loss_has_its_reason_as_a_field(
    scripted: ScriptedBackend, moved_clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """And how long the lease was held."""
    lease = acquire("default", ttl=10, renew=False)
    moved_clock.advance(20)
    lease.mark_lost()
    [record] = caplog.records
    assert (record.name, record.levelname) == (LEASES, "WARNING")
    assert fields(record) == lease.log_fields(
        reason="its ttl of 10 seconds has passed", held_for=pytest.approx(10)
    )


def test_forced_releases_are_each_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """However many an operator makes at once: each has its semaphore, token, and who did it."""
    store = lock_backends["memory"]
    leases = [acquire_lock(f"force:{number}", backend="memory") for number in range(3)]
    for lease in leases:
        assert lease
        assert lease.token
        assert store.force_release(lease.semaphore, lease.token, by="the user ann")
        with pytest.raises(LockLost):
            lease.renew()
    forced = [each for each in caplog.records if each.name == "django_distlock.operations"]
    assert [fields(each) for each in forced] == [
        {
            "semaphore": lease.semaphore,
            "backend": "memory",
            "token": lease.token,
            "by": "the user ann",
        }
        for lease in leases
        if lease
    ]
    assert forced[0].levelname == "WARNING"
    assert forced[0].getMessage().endswith("was force-released by the user ann.")


def test_views_of_a_store_that_is_down_share_a_line(
    scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """A hundred tracebacks a second would hide the reason."""
    scripted.answer("acquire", *[LockBackendUnavailable("no route to the store")] * 100)
    locked = distributed_lock("1234collectPayment", http=True)(view)
    for _ in range(100):
        assert locked(RequestFactory().get("/")).status_code == 503
    [record] = caplog.records
    assert fields(record) == {"reason": "no route to the store"}
    assert record.exc_info


def test_lines_that_are_off_cost_no_text(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is put together for them."""
    monkeypatch.setattr("django_distlock.leases.state.LeaseState.log_fields", pytest.fail)
    monkeypatch.setattr("django_distlock.locks.attempts.describe_contention", pytest.fail)
    lease = acquire("default")
    assert acquire_lock("1234collectPayment") is None
    lease.release()


def test_json_has_the_fields(scripted: ScriptedBackend, debug: pytest.LogCaptureFixture) -> None:
    """All are plain values, and none hides an attribute of the record."""
    acquire("default").release()
    for record in debug.records:
        assert json.loads(json.dumps(fields(record)))["semaphore"] == "1234collectPayment"
