"""Celery's tasks under locks, in real workers."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, cast
from uuid import uuid4

import pytest
from celery.exceptions import SoftTimeLimitExceeded, WorkerLostError
from redis import Redis

from django_distlock import (
    LockBackendUnavailable,
    LockLost,
    LockNotAcquired,
    acquire_lock,
    lock_backends,
)
from tests.support import celery_app
from tests.support.children import tied
from tests.support.concurrency import until
from tests.support.databases import committed, on_each_database
from tests.support.holders import holding
from tests.support.paths import ROOT
from tests.support.plugin import DATABASES, SURROUNDINGS, create_databases
from tests.support.processes import worker_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any, Self

pytestmark = [committed, pytest.mark.needs("redis"), pytest.mark.once]


class Worker:
    """A Celery worker that does two tasks at once; its output is in a file."""

    def __init__(self, pool: str, log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                tied(
                    [
                        *(sys.executable, "-m", "celery", "--app=tests.support.celery_app"),
                        *("worker", f"--pool={pool}", "--concurrency=2", "--loglevel=INFO"),
                        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
                    ]
                ),
                cwd=ROOT,
                env=worker_environment()
                | {"PYTHONWARNINGS": "always:The lease on:ResourceWarning"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        until(self._is_ready)
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.process.terminate()
            assert self.process.wait(60) == 0, self.output()
        finally:
            self.process.kill()
            self.process.wait()

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.output()
        return " ready." in self.output()

    def output(self) -> str:
        """Return what the worker has printed."""
        return self.log.read_text()


@pytest.fixture(scope="module", params=["prefork", "threads"])
def pool(request: pytest.FixtureRequest) -> str:
    """Return the pool that the worker runs its tasks in."""
    return cast("str", request.param)


@pytest.fixture(scope="module")
def all_databases(django_db_setup: None, pytestconfig: pytest.Config) -> None:
    """Use the databases of all tests: a worker gets their names when it starts."""
    started = pytestconfig.stash[SURROUNDINGS].start(sorted(DATABASES))
    create_databases(pytestconfig, started)


@pytest.fixture(scope="module")
def worker(
    pool: str, all_databases: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    """Run a worker for several tests."""
    with Worker(pool, tmp_path_factory.mktemp("celery") / "log") as running:
        yield running
    celery_app.app.close()


@pytest.fixture
def broker() -> Iterator[Redis]:
    """Connect to the broker, where tasks and tests meet."""
    with Redis.from_url(celery_app.URL) as client:
        yield client


@pytest.fixture
def name() -> str:
    """Return a name that no other test uses."""
    return uuid4().hex


def working(broker: Redis, name: str) -> int:
    """Wait until the task works, and return its process id."""
    message: Any = broker.blpop([f"{name} works"], 60)
    return int(message[1])


@pytest.mark.usefixtures("worker")
@on_each_database
def test_deliveries_of_a_task_run_one_at_a_time(alias: str, tmp_path: Path) -> None:
    """Together they lose no increment."""
    file = tmp_path / "counter"
    file.write_text("0")
    results = [celery_app.counts[alias].delay(str(file)) for _ in range(20)]
    assert [result.get(60) for result in results] == [None] * 20
    assert file.read_text() == "20"


@pytest.mark.usefixtures("worker")
def test_second_delivery_is_skipped(broker: Redis, name: str) -> None:
    """The first one is still working."""
    first = celery_app.work_or_skip.delay(name)
    working(broker, name)
    assert celery_app.work_or_skip.delay(name).get(60) is None
    broker.rpush(f"{name} goes on", "")
    assert first.get(60) == "worked"


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("task", "outcome"), [("work_or_retry", "worked"), ("work_or_retry_bound", "worked after 1")]
)
def test_contended_task_is_retried_by_celery(task: str, outcome: str, name: str) -> None:
    """By autoretry_for, or by self.retry() on_conflict."""
    with holding("default", name):
        result = getattr(celery_app, task).delay(name)
        until(lambda: result.state == "RETRY")
    assert result.get(60) == outcome


@pytest.mark.usefixtures("worker")
def test_errors_keep_their_class_for_the_caller(name: str) -> None:
    """By the result backend, from one process to the other."""
    with holding("default", name):
        with pytest.raises(LockNotAcquired, match=f"Somebody else holds '{name}'"):
            celery_app.work.delay(name).get(60)
    with pytest.raises(LockLost, match=f"The lease on '{name}' was lost") as caught:
        celery_app.lose.delay(name).get(60)
    assert caught.value.lease is None
    with pytest.raises(LockBackendUnavailable, match="down"):
        celery_app.find_no_store.delay().get(60)


def test_errors_are_pickled_without_their_lease() -> None:
    """A lease belongs to its process."""
    with holding("default") as lease:
        for kind in (LockLost, LockBackendUnavailable):
            error = kind("lost", lease=lease)
            error.add_note("at night")
            copy = pickle.loads(pickle.dumps(error))
            assert error.lease is lease
            assert (type(copy), copy.args, copy.lease) == (kind, ("lost",), None)
            assert copy.__notes__ == ["at night"]


def test_unavailable_is_pickled_with_its_attributes() -> None:
    """The pickle keeps that a request may have been carried out."""
    copy = pickle.loads(pickle.dumps(LockBackendUnavailable("down", reply_lost=True)))
    assert (copy.args, copy.reply_lost) == (("down",), True)


def test_wrong_arguments_are_refused_at_once() -> None:
    """Before anything is sent."""
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        celery_app.work.delay()


def test_task_leaves_no_lock_behind(worker: Worker, name: str) -> None:
    """It is released when the task has ended, with a warning in the worker's log."""
    assert celery_app.leave_behind.delay(name).get(60) is True
    with holding("default", name, timeout=60):
        until(
            lambda: (
                f"The lease on '{name}' was not released by a request or task" in worker.output()
            )
        )


@pytest.mark.parametrize("pool", ["prefork"], scope="module")
def test_task_that_exceeds_its_time_limit_leaves_no_lock_behind(
    worker: Worker, broker: Redis, name: str
) -> None:
    """The soft limit is this signal, and an exception in the task."""
    result = celery_app.leave_behind_and_hang.delay(name)
    os.kill(working(broker, name), signal.SIGUSR1)
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(60)
    until(lambda: f"The lease on '{name}' was not released" in worker.output())
    assert [*lock_backends["default"].held()] == []


def test_task_inside_a_task_ends_for_itself(worker: Worker, name: str) -> None:
    """The outer task's leases stay held."""
    assert celery_app.call_another.delay(name).get(60) is True
    until(lambda: f"The lease on '{name}, inner' was not released" in worker.output())
    assert [*lock_backends["default"].held()] == []


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("pool", ["prefork"], scope="module")
def test_lock_of_a_killed_process_is_free_after_its_ttl(broker: Redis, name: str) -> None:
    """Until then it is renewed; after the kill nobody renews it."""
    result = celery_app.work_and_be_killed.delay(name)
    pid = working(broker, name)
    assert acquire_lock(name) is None
    os.kill(pid, signal.SIGKILL)
    lease = acquire_lock(name, timeout=60)
    assert lease is not None
    with pytest.raises(WorkerLostError):  # and it isn't delivered again, although it has acks_late
        result.get(60)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("pool", ["prefork"], scope="module")
def test_task_that_is_delivered_again_is_refused_by_the_killed_processs_lock(
    broker: Redis, name: str
) -> None:
    """Celery delivers it again if the task has `reject_on_worker_lost`."""
    result = celery_app.work_and_be_delivered_again.delay(name)
    os.kill(working(broker, name), signal.SIGKILL)
    with pytest.raises(LockNotAcquired):
        result.get(60)
