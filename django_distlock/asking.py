"""What is asked of a store, written once: sync code asks at once, async code awaits the answers.

The policy is in generators, which yield each thing to ask, its name and arguments, and are sent the
answer, or are thrown the error.
"""

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from . import signals
from .backends.base import BaseLockBackend
from .background import background
from .handler import lock_backends
from .threads import detach, in_thread, may_concern_transactions
from .transactions import open_transactions

logger = logging.getLogger("django_distlock")

T = TypeVar("T")
Question = tuple[str, tuple[Any, ...]]
Questions = Generator[Question, Any, T]

SIGNALS = (
    signals.lock_acquired,
    signals.lock_released,
    signals.lock_lost,
)


def ask(store: BaseLockBackend, questions: Questions[T]) -> T:
    """Ask one after the other, all in the store's one time budget."""
    try:
        with store.in_time():
            name, arguments = next(questions)
            if store.keeps_open:
                background(store.alias).close_when_idle()
            while True:
                try:
                    answer = getattr(store, name)(*arguments)
                except BaseException as error:  # noqa: BLE001 - thrown where it is to be handled
                    name, arguments = questions.throw(error)
                else:
                    name, arguments = questions.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result


async def aask(
    backend: str,
    begin: Callable[[], Questions[T]],
    undo: Callable[[T], object] | None = None,
) -> T:
    """Ask what `begin` begins to: in the event loop if the store can, else in a thread.

    If the task is cancelled meanwhile, the questions are thrown that, and what they ask then is
    still asked. What can't be undone so, or by `undo` where a thread asks, is asked to the end all
    the same. The task ends after that.
    """
    if not _can_be_awaited(backend):
        return await in_thread(backend, lambda: ask(lock_backends[backend], begin()), undo)
    if undo is not None:
        return await _await_answers(lock_backends[backend], begin())
    asking = detach(_await_answers(lock_backends[backend], begin()))
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError:
        await asyncio.wait([asking])
        if error := asking.exception():
            logger.error("A task was cancelled; what it asked a lock's store for failed: %s", error)
        raise


def _can_be_awaited(backend: str) -> bool:
    """Tell whether nothing needs a thread: the store, a receiver of signals, or a transaction."""
    store = lock_backends[backend]
    return (
        store.is_async
        and not any(signal.receivers for signal in SIGNALS)
        and not may_concern_transactions()
        and not open_transactions()
    )


async def _await_answers(store: BaseLockBackend, questions: Questions[T]) -> T:
    """Ask one after the other, all in the store's one time budget, in the event loop."""
    cancelled = False
    try:
        with store.new_budget() as budget:
            name, arguments = next(questions)
            while True:
                question = getattr(store, f"a{name}")(*arguments, budget=budget)
                try:
                    answer = await (asyncio.shield(detach(question)) if cancelled else question)
                except BaseException as error:  # noqa: BLE001 - thrown where it is to be handled
                    cancelled = isinstance(error, asyncio.CancelledError)
                    name, arguments = questions.throw(error)
                else:
                    name, arguments = questions.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
