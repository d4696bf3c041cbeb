"""The documented tasks of Celery, run in this process; tests/jobs has real workers."""

from __future__ import annotations

import warnings
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from celery.app import app_or_default

from django_distlock.leases.cleanup import connect_celery
from tests.support.concurrency import elsewhere
from tests.support.documentation import example
from tests.support.holders import acquire
from tests.support.leaving_views import names
from tests.support.task_queues import on_refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_distlock import Lease

pytestmark = pytest.mark.once


@pytest.fixture(scope="module", autouse=True)
def app() -> Iterator[Celery]:
    """Run tasks at once."""
    connect_celery()  # unless it was imported before Django's apps were ready
    earlier = app_or_default()
    app = Celery("documented")
    app.conf.task_always_eager = True
    with warnings.catch_warnings():
        # It gets the tasks of other tests' applications, too, of which some share a name.
        warnings.simplefilter("ignore")
        app.finalize()
    yield app
    app.close()
    earlier.set_current()


def test_contended_tasks_are_retried() -> None:
    """By autoretry_for, or by self.retry(). So the how-to says."""
    documented: Any = example("integrations/celery.md", "Celery", "Retry by `self.retry()`")
    charged: list[int] = []
    documented.payments = SimpleNamespace(collect_payment=charged.append)
    leases: list[Lease] = []

    def release(**fields: object) -> None:
        assert leases.pop().release()

    with on_refusal(release):
        for task in (documented.collect_payment, documented.collect_payment_later):
            leases.append(elsewhere(partial(acquire, "default", "1234collectPayment")))
            task.delay(1234)
            task.delay(customer_id=1234)
            assert leases == []
    assert charged == [1234] * 4


def test_task_runs_once_on_all_hosts() -> None:
    """The documented periodic task is skipped for a time after it has run."""
    documented: Any = example("integrations/celery.md", "Celery", "Run a periodic task once")
    collections: list[int] = []
    documented.payments = SimpleNamespace(collect_payments=lambda: collections.append(1))
    for _ in range(8):
        documented.collect_payments.delay()
    assert collections == [1]
    assert names("default") == ["collectPayments"]
