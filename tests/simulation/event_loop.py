"""asyncio's own event loop, on virtual time and simulated sockets.

It is run round by round, whenever something has arrived for it or a timer is due.
"""

from __future__ import annotations

import asyncio
import selectors
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVarTuple, Unpack

from .disk import PowerFailure
from .scheduler import Scheduler
from .sockets import of_descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Context

    from .machines import Process

Ts = TypeVarTuple("Ts")

SHORTEST: Final = 0.000_001
"""Seconds: a wait that is shorter might not advance the time, which is a float."""


class Selector(selectors.BaseSelector):
    """Knows which simulated sockets are readable. Simulated sockets are always writable."""

    def __init__(self) -> None:
        self.when_ready: Callable[[], object] = lambda: None
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._marked: dict[int, None] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """See BaseSelector."""
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[number] = selectors.SelectorKey(fileobj, number, events, data)
        found = of_descriptor.get(number)  # None: the loop's own pipe, which nobody uses
        if found is not None:
            found.on_readable = partial(self._mark, number)
            if found.is_readable():
                self._marked[number] = None
        return key

    def _mark(self, number: int) -> None:
        self._marked[number] = None
        self.when_ready()

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """See BaseSelector."""
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._marked.pop(number, None)
        if (found := of_descriptor.get(number)) is not None:
            found.on_readable = None
        return self._keys.pop(number)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready, without waiting."""
        ready = []
        for number in [*self._marked]:
            key, found = self._keys[number], of_descriptor.get(number)
            if found is None or not found.is_readable():
                del self._marked[number]
            elif key.events & selectors.EVENT_READ:
                ready.append((key, selectors.EVENT_READ))
        return ready

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """See BaseSelector."""
        return self._keys

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """See BaseSelector."""
        return self._keys[fileobj if isinstance(fileobj, int) else fileobj.fileno()]


class EventLoop(asyncio.SelectorEventLoop):
    """The event loop of a simulated process."""

    def __init__(self, process: Process) -> None:
        selector = Selector()
        super().__init__(selector)
        selector.when_ready = self.wake
        self.signal_handlers: dict[int, Callable[[], object]] = {}
        self._process = process
        self._scheduler = Scheduler.current
        self._is_woken = self._has_callbacks = False
        process.loop = self
        self.set_exception_handler(self._report)
        self.failures: list[dict[str, Any]] = []
        """What asyncio would have logged."""
        self.on_power_failure: Callable[[], object] = lambda: None

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self._scheduler.is_over:
            self.failures.append(context)

    def time(self) -> float:
        """Return the virtual time."""
        return self._scheduler.now

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See AbstractEventLoop. Some time has passed by then, as it has in any real loop."""
        when = max(when, self.time() + SHORTEST)
        timer = super().call_at(when, callback, *args, context=context)
        self._scheduler.call_at(when, partial(self._timer_is_due, timer))
        return timer

    def _timer_is_due(self, timer: asyncio.TimerHandle) -> None:
        if not timer.cancelled():
            self._turn()

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """See AbstractEventLoop."""
        self._has_callbacks = True
        return super().call_soon(callback, *args, context=context)

    def wake(self) -> None:
        """Run soon: there is something to do."""
        if not self._is_woken:
            self._is_woken = True
            self._scheduler.call_soon(self._turn)

    def _turn(self) -> None:
        self._process.run(self._run_ready)

    def _run_ready(self) -> None:
        self._is_woken, self._has_callbacks = False, True
        try:
            while self._has_callbacks:
                self._has_callbacks = False
                self.stop()  # after one round
                self.run_forever()
        except PowerFailure:
            self.on_power_failure()

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """See AbstractEventLoop: the caller is a simulated thread."""
        handle = self.call_soon(callback, *args, context=context)
        self.wake()
        return handle

    def add_signal_handler(
        self, sig: int, callback: Callable[[Unpack[Ts]], Any], *args: *Ts
    ) -> None:
        """Keep it for receive_signal()."""
        self.signal_handlers[sig] = partial(callback, *args)

    def receive_signal(self, number: int) -> None:
        """Let the process receive a signal."""
        self.call_soon_threadsafe(self.signal_handlers[number])

    def start(self, coroutine: Any, name: str) -> asyncio.Task[Any]:
        """Run a coroutine in a task of this name: asyncio's own depends on earlier universes."""
        task = self.create_task(coroutine, name=name)
        self.wake()
        return task

    def discard(self) -> None:
        """Close everything of it, after the end of the universe."""
        for task in asyncio.all_tasks(self):
            task.get_coro().close()
        self.close()
