"""Undo an acquisition that was interrupted, or raised."""

import asyncio

from django_distlock.concurrency.store_calls import aask, ask
from django_distlock.conf import lock_backends

from .acquisition import Acquisition


def undo(acquisition: Acquisition) -> None:
    """Undo the acquisition in sync code, if that is not done. Errors are logged."""
    if acquisition.must_undo:
        ask(lock_backends[acquisition.backend], acquisition.undo)


async def aundo(acquisition: Acquisition, error: BaseException) -> None:
    """See undo(). For a cancelled task, aask() has undone what it asked for.

    Where the event loop is closed, no store can be asked: the lease ends with its ttl.
    """
    if acquisition.must_undo:
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            acquisition.mark_unreleased()
        else:
            await aask(acquisition.backend, acquisition.undo)
