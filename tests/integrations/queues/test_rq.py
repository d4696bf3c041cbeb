"""Jobs of RQ under locks, in workers of django-rq on a Redis server."""

from __future__ import annotations

import signal
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import aacquire_lock, distributed_lock, skip
from tests.support.concurrency import elsewhere, until
from tests.support.documentation import example
from tests.support.holders import acquire, due_now, renewed_since
from tests.support.leaving_views import names
from tests.support.task_queues import Charges, label_of, leave, leaving_behind, on_refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import django_rq
    import rq
else:
    django_rq = pytest.importorskip("django_rq")
    rq = pytest.importorskip("rq")

pytestmark = [pytest.mark.once, pytest.mark.needs("redis")]

PAGE = "integrations/django-rq.md"
labels: list[str] = []


@pytest.fixture(autouse=True)
def queue(settings: Any) -> Iterator[rq.Queue]:
    """Return the site's queue, with the class of jobs that the how-to sets."""
    url = settings.CACHES["redis"]["LOCATION"].rpartition("/")[0]
    settings.RQ_QUEUES = {"default": {"URL": f"{url}/3"}}
    settings.RQ = example(PAGE, "Release locks that are left behind").RQ
    queue = django_rq.get_queue()
    queue.connection.flushdb()
    labels.clear()
    yield queue
    queue.connection.close()


class WithoutCommands:
    """A worker that listens to no commands: to stop that may take a second."""

    def subscribe(self) -> None:
        """Do nothing."""


class Worker(WithoutCommands, rq.SimpleWorker):
    """A worker that does its jobs in its own process."""


class ForkingWorker(WithoutCommands, rq.Worker):
    """A worker that forks a process for each job."""


def work(worker_class: Any = Worker) -> None:
    """Do all jobs that are in the queue."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    worker = django_rq.get_worker("default", worker_class=worker_class)
    try:
        worker.work(burst=True, logging_level="WARNING")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_contended_job_is_retried(queue: rq.Queue, charges: Charges) -> None:
    """Another worker works for the same customer. So the how-to says."""
    documented = example(PAGE, "django-rq")
    documented.payments = charges
    lease = elsewhere(lambda: acquire("default"))
    positional = documented.collect_payment.delay(1234)
    by_name = documented.collect_payment.enqueue(customer_id=1234)
    work()
    assert lease.release()
    for job in (positional, by_name):
        assert job.get_status() == rq.job.JobStatus.SCHEDULED
        job.refresh()
        queue.enqueue_job(job)
    work()
    assert charges.customers == [1234, 1234]
    assert charges.labels == [f"{documented.__name__}.collect_payment"] * 2


@distributed_lock("<int:customer_id>collectPayment", on_conflict=skip)
def skipped(customer_id: int) -> None:
    """Skip."""
    raise NotImplementedError


@distributed_lock("<int:customer_id>collectPayment")
def failed(customer_id: int) -> None:
    """Fail."""
    raise NotImplementedError


@distributed_lock(
    "<int:customer_id>collectPayment", on_conflict=lambda customer_id: rq.Retry(max=1)
)
def retried(customer_id: int) -> None:
    """Retry without a failure."""
    labels.append("worked")


def test_refusal_is_what_the_table_says(queue: rq.Queue) -> None:
    """Failed, with the error's text; or done or retried, without a failure."""
    lease = elsewhere(lambda: acquire("default"))
    fails, skips = queue.enqueue(failed, 1234), queue.enqueue(skipped, 1234)
    work()
    result = fails.latest_result()
    assert result is not None
    assert "LockNotAcquired: Another thread" in (result.exc_string or "")
    assert skips.get_status() == rq.job.JobStatus.FINISHED

    def release(**fields: object) -> None:
        lease.release()

    retries = queue.enqueue(retried, 1234)
    with on_refusal(release):
        work()
    assert retries.get_status() == rq.job.JobStatus.FINISHED
    assert labels == ["worked"]


def test_lock_above_the_decorator_is_refused() -> None:
    """It would be acquired by the code that enqueues the job."""

    def work() -> None:
        raise NotImplementedError

    with pytest.raises(TypeError, match="below @job"):
        distributed_lock("report")(django_rq.job(work))


def leaving() -> None:
    """Leave a lock behind."""
    labels.append(leave("report"))


def failing() -> None:
    """Leave a lock behind, and fail."""
    leaving()
    raise ZeroDivisionError


@distributed_lock("decorated")
def exceeding() -> None:
    """Leave a lock behind, and exceed the time limit, which is an alarm."""
    leaving()
    signal.raise_signal(signal.SIGALRM)


async def aleaving() -> None:
    """Leave a lock behind in the event loop that RQ runs for the job."""
    assert await aacquire_lock("report")
    labels.append(label_of("report"))


@pytest.mark.parametrize("function", [leaving, failing, exceeding, aleaving])
def test_job_leaves_no_lock_behind(queue: rq.Queue, function: Callable[[], object]) -> None:
    """However it ends. The function's name is the label."""
    job = queue.enqueue(function)
    with leaving_behind():
        work()
    assert labels == [f"{__name__}.{function.__name__}"]
    status = rq.job.JobStatus
    fails = function in (failing, exceeding)
    assert job.get_status() == (status.FAILED if fails else status.FINISHED)


def hold_renewed() -> str:
    """Renew a lease in the background, and leave it behind."""
    lease = acquire("redis", "report")
    is_renewed = renewed_since([lease])
    due_now([lease])
    until(is_renewed)
    return label_of("report", "redis")


def test_forked_worker_renews_its_leases_and_leaves_none_behind(queue: rq.Queue) -> None:
    """Each job has a process of its own, which ends without Python's clean-up."""
    earlier = acquire("redis", "the worker's")
    job = queue.enqueue(hold_renewed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        work(ForkingWorker)
    assert job.return_value() == f"{__name__}.hold_renewed"
    assert {*names("redis")} & {"report", "the worker's"} == {"the worker's"}
    assert earlier.release()
