"""The two ways to wait for a server: in the thread, or in an event loop.

Code for both is a coroutine that is given one of them. With BLOCKING none of its awaits suspends:
each returns once the thread has waited, so that run_sync() needs no event loop.
"""

import asyncio
import concurrent.futures
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, ClassVar, Final, Protocol


class Askable(Protocol):
    """A server that can be asked in both ways: see pools.Pool."""

    def ask_all(self, requests: Sequence[Any], deadline: float, undo: Any = None) -> list[Any]: ...
    async def aask_all(
        self, requests: Sequence[Any], deadline: float, undo: Any = None
    ) -> list[Any]: ...


class Calls(Protocol):
    """A way to wait for a server."""

    takes_turns: ClassVar[bool]
    """Whether a call may have waited for a connection until its deadline, and goes on after it."""

    async def ask_all(
        self, server: Askable, requests: Sequence[Any], deadline: float, undo: Any = None
    ) -> list[Any]:
        """See Pool.ask_all()."""
        ...

    async def wait(self, future: Future[Any], seconds: float) -> None:
        """Wait for the future for so many seconds at most, whatever becomes of it.

        It is a running_future(), so the cancellation of a task that waits for it doesn't cancel it.
        """
        ...


class BlockingCalls:
    """Waits in the thread."""

    takes_turns: ClassVar[bool] = False

    async def ask_all(
        self, server: Askable, requests: Sequence[Any], deadline: float, undo: Any = None
    ) -> list[Any]:
        """See Calls."""
        return server.ask_all(requests, deadline, undo)

    async def wait(self, future: Future[Any], seconds: float) -> None:
        """See Calls."""
        concurrent.futures.wait([future], max(0.0, seconds))


class LoopCalls:
    """Waits in the running event loop."""

    takes_turns: ClassVar[bool] = True

    async def ask_all(
        self, server: Askable, requests: Sequence[Any], deadline: float, undo: Any = None
    ) -> list[Any]:
        """See Calls."""
        return await server.aask_all(requests, deadline, undo)

    async def wait(self, future: Future[Any], seconds: float) -> None:
        """See Calls."""
        if not future.done():
            with suppress(Exception):  # its own error is raised by future.result()
                async with asyncio.timeout(max(0.0, seconds)):
                    await asyncio.wrap_future(future)


BLOCKING: Final[Calls] = BlockingCalls()
IN_LOOP: Final[Calls] = LoopCalls()


def running_future() -> Future[Any]:
    """Return a future that can't be cancelled."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future
