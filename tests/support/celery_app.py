"""A Celery application: tasks under locks, in the ways that they are written."""

import json
import os
from pathlib import Path
from typing import Any, NoReturn

import redis
from celery import Celery

from django_distlock import (
    LockBackendUnavailable,
    LockNotAcquired,
    acquire_lock,
    distributed_lock,
    skip,
)

PLACE = json.loads(os.environ.get("DISTLOCK_TEST_REDIS", '{"HOST": "127.0.0.1", "PORT": "6379"}'))
URL = "redis://{HOST}:{PORT}/0".format(**PLACE)

app = Celery("tests", broker=URL, backend=URL)
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)


def meet(name: str) -> None:
    """Announce the task's process id to the test, and wait until the test continues it."""
    with redis.Redis.from_url(URL) as client:
        client.rpush(f"{name} works", os.getpid())
        assert client.blpop([f"{name} goes on"], 60)


def count(path: str) -> None:
    """Increment the number in an unguarded file."""
    file = Path(path)
    file.write_text(str(int(file.read_text()) + 1))


# One for each database: the decorator names the store of a task's lock.
counts = {
    alias: app.task(name=f"count in {alias}")(
        distributed_lock("counter", timeout=60, backend=alias)(count)
    )
    for alias in ("default", "postgresql", "mariadb")
}


@app.task  # type: ignore[untyped-decorator]
@distributed_lock("<name>:once", on_conflict=skip)
def work_or_skip(name: str) -> str:
    """Work, unless another task does."""
    meet(name)
    return "worked"


@app.task(acks_late=True)  # type: ignore[untyped-decorator]
@distributed_lock("<name>", ttl=3)
def work_and_be_killed(name: str) -> None:
    """Hold a lock that expires soon once nobody renews it."""
    meet(name)


@app.task(acks_late=True, reject_on_worker_lost=True)  # type: ignore[untyped-decorator]
@distributed_lock("<name>")
def work_and_be_delivered_again(name: str) -> None:
    """Hold a lock. If the process is killed, the broker delivers the task again."""
    meet(name)


@app.task(  # type: ignore[untyped-decorator]
    autoretry_for=(LockNotAcquired,), retry_backoff=True, max_retries=None
)
@distributed_lock("<name>")
def work_or_retry(name: str) -> str:
    """Work; retry later if another task works now."""
    return "worked"


def retry(task: Any, name: str) -> NoReturn:
    """Make Celery retry soon."""
    raise task.retry(countdown=0.1)


@app.task(bind=True, max_retries=None)  # type: ignore[untyped-decorator]
@distributed_lock("<name>", on_conflict=retry)
def work_or_retry_bound(self: Any, name: str) -> str:
    """Do the same by self.retry()."""
    return f"worked after {min(self.request.retries, 1)}"


@app.task  # type: ignore[untyped-decorator]
@distributed_lock("<name>")
def work(name: str) -> None:
    """Work, or raise."""


@app.task  # type: ignore[untyped-decorator]
def lose(name: str) -> None:
    """Lose the lock while working."""
    from tests.support.holders import take_away

    with distributed_lock(name) as lease:
        take_away(lease)


@app.task  # type: ignore[untyped-decorator]
def find_no_store() -> None:
    """Raise the error of a store that is down."""
    raise LockBackendUnavailable("down", reply_lost=True)


@app.task  # type: ignore[untyped-decorator]
def leave_behind(name: str) -> bool:
    """Acquire, and forget to release."""
    return acquire_lock(name) is not None


@app.task  # type: ignore[untyped-decorator]
def leave_behind_and_hang(name: str) -> None:
    """Acquire, and work until a time limit ends that."""
    assert acquire_lock(name)
    meet(name)


@app.task  # type: ignore[untyped-decorator]
def call_another(name: str) -> bool:
    """Hold a lock while another task runs in this one."""
    with distributed_lock(name) as lease:
        return bool(leave_behind.apply([f"{name}, inner"]).result) and lease.held
