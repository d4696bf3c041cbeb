"""The spans of OpenTelemetry: waiting for a lock, and holding it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.trace import StatusCode, get_current_span

from django_distlock import (
    LockNotAcquired,
    aacquire_lock,
    acquire_lock,
    distributed_lock,
    release_lock,
    skip,
)
from django_distlock.locks import waiting
from django_distlock.telemetry.opentelemetry import instrument
from tests.support.concurrency import elsewhere, run
from tests.support.databases import committed
from tests.support.holders import acquire, renew_now, take_away

if TYPE_CHECKING:
    from django_distlock.locks.acquisition import Acquisition
    from tests.telemetry.traces import Traces

pytestmark = pytest.mark.once

TEMPLATE = "<customer_id>collectPayment"


@distributed_lock(TEMPLATE, backend="memory", on_conflict=skip)
def collect(customer_id: int) -> bool:
    """Collect nothing."""
    return True


# What the spans tell


def test_holding(traces: Traces) -> None:
    """A grant at once has no span for waiting: it would be in the way of those that matter."""
    with traces.site.start_as_current_span("request") as request:
        lease = acquire("memory")
        release_lock("1234collectPayment", backend="memory")
    [span] = traces.spans
    assert span.name == "distlock.hold"
    assert traces.are_below(request)
    assert span.start_time
    assert span.end_time
    assert span.end_time - span.start_time == int(lease.held_for * 1e9)
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes == {
        "distlock.template": "",
        "distlock.backend": "memory",
        "distlock.outcome": "released",
        "distlock.token": lease.token,
        "distlock.waited": lease.waited,
    }


def test_waiting_for_a_grant(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the call until the grant; holding begins there."""
    holder = elsewhere(lambda: acquire("memory"))

    async def wait_long(acquisition: Acquisition, _: Any) -> None:
        holder.release()
        acquisition.pass_time(100)

    monkeypatch.setattr(waiting, "before_waits", [wait_long])
    with traces.site.start_as_current_span("request") as request:
        lease = acquire("memory", timeout=200)
        lease.release()
    own, wait, hold = traces.spans[:1], *traces.spans[1:]
    assert [span.name for span in (*own, wait, hold)] == [
        "distlock.hold",
        "distlock.wait",
        "distlock.hold",
    ]
    assert traces.are_below(request) is False  # the other thread's is not
    assert wait.parent == hold.parent == request.get_span_context()
    assert wait.attributes == {
        "distlock.template": "",
        "distlock.backend": "memory",
        "distlock.outcome": "acquired",
    }
    assert wait.start_time
    assert wait.end_time
    assert hold.start_time
    assert wait.end_time - wait.start_time == int(lease.waited * 1e9) > 100e9
    assert 0 <= wait.end_time - hold.start_time < 1e9


def test_refusal(traces: Traces) -> None:
    """It has a span however short it was, without the holder, which is for operators."""
    with traces.site.start_as_current_span("request") as request:
        with distributed_lock("1234collectPayment", backend="memory"):
            with (
                pytest.raises(LockNotAcquired),
                distributed_lock("1234collectPayment", backend="memory"),
            ):
                pytest.fail("it is held")
    assert traces.names == ["distlock.wait", "distlock.hold"]
    assert traces.are_below(request)
    assert traces.spans[0].status.status_code is StatusCode.UNSET
    assert traces.spans[0].attributes == {
        "distlock.template": "",
        "distlock.backend": "memory",
        "distlock.outcome": "contended",
    }


def test_loss_is_an_error_with_its_reason(traces: Traces) -> None:
    """The thread that renews the lease notices it; the span belongs to the request all the same."""
    with traces.site.start_as_current_span("request") as request:
        lease = acquire("memory")
    take_away(lease)
    renew_now(lease)
    [span] = traces.spans
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description
    assert "an operator took it away" in span.status.description
    assert span.attributes
    assert span.attributes["distlock.outcome"] == "lost"
    assert traces.are_below(request)


def test_template_is_in_the_name(traces: Traces) -> None:
    """The semaphore, which may hold a customer's id, is nowhere."""
    assert collect(1234)
    [span] = traces.spans
    assert span.name == f"distlock.hold {TEMPLATE}"
    assert span.attributes
    assert span.attributes["distlock.template"] == TEMPLATE
    assert "1234" not in span.to_json().replace(str(span.attributes["distlock.token"]), "")


def test_semaphores_if_asked_for(traces: Traces) -> None:
    """The site decides whether its traces may tell them."""
    instrument(tracer_provider=traces.provider, semaphores=True)
    with distributed_lock("1234collectPayment", backend="memory"):
        assert acquire_lock("1234collectPayment", backend="memory") is None
    found = [(span.attributes or {}).get("distlock.semaphore") for span in traces.spans]
    assert found == 2 * ["1234collectPayment"]


def test_templates_that_the_site_names(traces: Traces) -> None:
    """For acquisitions by acquire_lock() and `with`."""
    instrument(
        tracer_provider=traces.provider,
        template_of=lambda semaphore: f"<id>{semaphore.lstrip('0123456789')}",
    )
    acquire("memory").release()
    assert traces.names == ["distlock.hold <id>collectPayment"]


# Where they stand in the trace


def test_release_by_another_thread(traces: Traces) -> None:
    """The span stays below the one that was current at the acquisition."""
    with traces.site.start_as_current_span("request") as request:
        lease = acquire("memory")
    assert elsewhere(lease.release)
    assert traces.names == ["distlock.hold"]
    assert traces.are_below(request)


@committed
@pytest.mark.parametrize("alias", ["memory", "default"])
def test_async_code(traces: Traces, alias: str) -> None:
    """In the event loop, or in a thread that asks the store."""

    async def hold() -> None:
        with traces.site.start_as_current_span("request") as request:
            async with distributed_lock("1234collectPayment", backend=alias):
                assert await aacquire_lock("1234collectPayment", backend=alias) is None
            await sync_to_async(lambda: acquire(alias).release())()
        assert traces.are_below(request)

    run(hold())
    assert traces.names == ["distlock.wait", "distlock.hold", "distlock.hold"]


def test_tasks_keep_their_spans_apart(traces: Traces) -> None:
    """Many run in one thread."""
    parents = {}

    async def hold(number: int) -> None:
        with traces.site.start_as_current_span(f"request {number}"):
            async with distributed_lock(f"{number}collectPayment", backend="memory") as lease:
                parents[lease.token] = get_current_span().get_span_context()
                await sync_to_async(lambda: None)()

    async def main() -> None:
        import asyncio

        await asyncio.gather(*map(hold, range(5)))

    run(main())
    assert {(span.attributes or {})["distlock.token"]: span.parent for span in traces.spans} == (
        parents
    )
    assert len(parents) == 5


@committed
def test_lock_that_a_transaction_takes_back(traces: Traces) -> None:
    """Two blocks in one transaction hold one lease, until the transaction has ended."""
    with traces.site.start_as_current_span("request") as request:
        with transaction.atomic():
            for _ in range(2):
                with distributed_lock("1234collectPayment", backend="memory"):
                    pass
            assert traces.names == []
    assert traces.names == ["distlock.hold"]
    assert traces.are_below(request)
