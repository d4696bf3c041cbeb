"""Other threads and event loops, and how to wait for them."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from django_distlock.backends.database.own_connection import OwnConnection

T = TypeVar("T")

NO_MORE_THREADS = RuntimeError("can't start new thread")
"""What Thread.start() raises then."""


class Interrupted(BaseException):
    """The exception that a signal handler raises."""


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition for which there is no event."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def elsewhere(call: Callable[[], T]) -> T:
    """Call in another thread, as another request would."""

    def work() -> T:
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result(60)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run async code, and close what it opened in the thread that asgiref has for sync code."""

    async def run_and_close() -> T:
        try:
            return await main
        finally:
            await sync_to_async(connections.close_all)()

    return asyncio.run(run_and_close())


@contextmanager
def used_elsewhere(connection: OwnConnection) -> Iterator[None]:
    """Use one of the locks' own connections in another thread during the block."""
    using, done = threading.Event(), threading.Event()

    def use() -> None:
        with connection.lock:
            connection.is_used = True
            using.set()
            done.wait(60)
            connection.is_used = False

    thread = threading.Thread(target=use)
    thread.start()
    try:
        assert using.wait(60)
        yield
    finally:
        done.set()
        thread.join(60)
