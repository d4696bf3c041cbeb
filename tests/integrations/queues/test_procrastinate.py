"""Procrastinate's tasks under locks, in a worker on its connector in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import LockNotAcquired, aacquire_lock, distributed_lock, skip
from tests.support.concurrency import elsewhere, run
from tests.support.documentation import example
from tests.support.holders import acquire
from tests.support.task_queues import Charges, label_of, leave, leaving_behind

if TYPE_CHECKING:
    import procrastinate
    from procrastinate.contrib import django as contrib
    from procrastinate.contrib.django import procrastinate_app
    from procrastinate.testing import InMemoryConnector
else:
    procrastinate = pytest.importorskip("procrastinate")
    contrib = pytest.importorskip("procrastinate.contrib.django")
    procrastinate_app = pytest.importorskip("procrastinate.contrib.django.procrastinate_app")
    InMemoryConnector = pytest.importorskip("procrastinate.testing").InMemoryConnector

pytestmark = pytest.mark.once

PAGE = "integrations/procrastinate.md"


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> procrastinate.App:
    """Return the site's application, with the middleware that the how-to sets."""
    settings = example(PAGE, "Release locks that are left behind")
    app = contrib.DjangoApp(
        connector=InMemoryConnector(), worker_defaults=settings.PROCRASTINATE_WORKER_DEFAULTS
    )
    monkeypatch.setattr(procrastinate_app, "current_app", app)
    return app


def jobs(app: procrastinate.App) -> dict[int, Any]:
    """Return the jobs by their numbers."""
    connector = app.connector
    assert isinstance(connector, InMemoryConnector)
    return connector.jobs


def statuses(app: procrastinate.App) -> list[str]:
    """Return the status of each job."""
    return [job["status"] for job in jobs(app).values()]


async def work(app: procrastinate.App, **options: Any) -> None:
    """Do all jobs that are in the queue, two at once."""
    async with app.open_async():
        await app.run_worker_async(
            wait=False, concurrency=2, install_signal_handlers=False, **options
        )


@pytest.mark.parametrize("is_async", [True, False])
def test_contended_task_is_retried(
    app: procrastinate.App, charges: Charges, is_async: bool
) -> None:
    """Of two jobs for one customer at once, one is done later. So the how-to says."""
    documented: Any = example(PAGE, "Procrastinate")
    documented.payments = charges
    task = documented.collect_payment
    if not is_async:

        @app.task(name="shop.collect", retry=task.retry_strategy)
        @distributed_lock("<int:customer_id>collectPayment")
        def collect_payment(customer_id: int) -> None:
            charges.collect_payment(customer_id)

        task = collect_payment
    assert task.retry_strategy.wait == 10
    task.retry_strategy.wait = 0
    for _ in range(2):
        task.defer(customer_id=1234)
    run(work(app))
    assert statuses(app) == ["succeeded"] * 2
    assert sum(job["attempts"] for job in jobs(app).values()) > 2
    assert charges.customers == [1234, 1234]
    assert charges.labels == [task.name] * 2


def test_refusal_is_what_the_table_says(
    app: procrastinate.App, caplog: pytest.LogCaptureFixture
) -> None:
    """Failed, or done."""

    @app.task
    @distributed_lock("<int:customer_id>collectPayment")
    def fail(customer_id: int) -> None:
        raise NotImplementedError

    @app.task(pass_context=True)
    @distributed_lock("<int:customer_id>collectPayment", on_conflict=skip)
    async def skipped(context: procrastinate.JobContext, customer_id: int) -> None:
        raise NotImplementedError

    lease = elsewhere(lambda: acquire("default"))
    fail.defer(customer_id=1234)
    skipped.defer(customer_id=1234)
    run(work(app))
    assert statuses(app) == ["failed", "succeeded"]
    assert "LockNotAcquired: Another thread" in caplog.text
    assert lease.release()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("is_async", [True, False])
def test_task_leaves_no_lock_behind(app: procrastinate.App, fails: bool, is_async: bool) -> None:
    """Also if it fails. The task's name is the label."""
    labels = []

    @app.task(name="shop.leave")
    def leaving() -> None:
        labels.append(leave("report"))
        assert not fails

    @app.task(name="shop.aleave")
    async def aleaving() -> None:
        assert await aacquire_lock("report")
        labels.append(label_of("report"))
        assert not fails

    task = aleaving if is_async else leaving
    task.defer()
    with leaving_behind():
        run(work(app))
    assert labels == [task.name]
    assert statuses(app) == ["failed" if fails else "succeeded"]


def test_aborted_task_leaves_no_lock_behind(app: procrastinate.App) -> None:
    """Neither the decorator's nor another one: Procrastinate cancels async tasks."""

    @app.task
    @distributed_lock("decorated")
    async def hanging() -> None:
        assert await aacquire_lock("report")
        await app.job_manager.cancel_job_by_id_async(number, abort=True)
        await asyncio.Event().wait()

    number = hanging.defer()
    with leaving_behind():
        run(work(app))
    assert statuses(app) == ["aborted"]


def test_lock_above_the_decorator_is_refused(app: procrastinate.App) -> None:
    """It would be acquired by the code that defers the job."""
    with pytest.raises(TypeError, match=r"below @app\.task"):
        distributed_lock("report")(app.task(name="shop.leave")(leave))


def test_retries_are_for_refusals_only(app: procrastinate.App) -> None:
    """As the how-to writes it."""
    strategy = example(PAGE, "Procrastinate").collect_payment.retry_strategy
    assert strategy.retry_exceptions == {LockNotAcquired}
