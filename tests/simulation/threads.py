"""What simulated code finds in the modules threading, concurrent.futures and time."""

from __future__ import annotations

import math
import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Self

from greenlet import getcurrent

from django_distlock import clocks

from .scheduler import Scheduler, SimulatedThread, Waiters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .machines import Process


real_monotonic: Final = clocks.monotonic


class Thread:
    """See threading.Thread."""

    def __init__(
        self,
        target: Callable[..., object],
        name: str = "thread",
        args: Iterable[Any] = (),
        daemon: bool | None = None,
    ) -> None:
        self.name = name
        self.daemon = daemon
        self._target = target
        self._args = [*args]
        self._simulated: SimulatedThread | None = None
        self._ended = Waiters()

    def start(self) -> None:
        """See threading.Thread."""
        process = running_process()
        self._simulated = SimulatedThread(process, self._run)
        process.threads.append(self._simulated)
        self._simulated.start()

    def _run(self) -> None:
        local.thread = self
        try:
            self._target(*self._args)
        finally:
            self._ended.wake_all()

    def is_alive(self) -> bool:
        """See threading.Thread."""
        return self._simulated is not None and not self._simulated.has_ended

    def join(self, timeout: float | None = None) -> None:
        """See threading.Thread."""
        if self.is_alive():
            self._ended.wait(timeout)


class Lock:
    """See threading.Lock."""

    def __init__(self) -> None:
        self._is_held = False
        self._waiters = Waiters()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """See threading.Lock."""
        if not self._is_held:
            self._is_held = True
            return True
        if not blocking or timeout == 0:
            return False
        return self._waiters.wait(None if timeout < 0 else timeout)

    def release(self) -> None:
        """See threading.Lock. The first waiter gets it."""
        if not self._is_held:
            raise RuntimeError("release unlocked lock")
        self._is_held = self._waiters.wake_first()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


class RLock(Lock):
    """See threading.RLock."""

    def __init__(self) -> None:
        super().__init__()
        self._owner: object = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """See threading.RLock."""
        if self._owner is not getcurrent():
            if not super().acquire(blocking, timeout):
                return False
            self._owner = getcurrent()
        self._depth += 1
        return True

    def release(self) -> None:
        """See threading.RLock."""
        self._depth -= 1
        if not self._depth:
            self._owner = None
            super().release()


class Event:
    """See threading.Event."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiters = Waiters()

    def is_set(self) -> bool:
        """See threading.Event."""
        return self._is_set

    def set(self) -> None:
        """See threading.Event."""
        self._is_set = True
        self._waiters.wake_all()

    def clear(self) -> None:
        """See threading.Event."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """See threading.Event."""
        if not self._is_set and (timeout is None or timeout > 0):
            self._waiters.wait(timeout)
        return self._is_set


class Local:
    """See threading.local: attributes of each greenlet, which has them and so ends with them."""

    def __init__(self) -> None:
        object.__setattr__(self, "key", object())

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        key = object.__getattribute__(self, "key")
        of: dict[object, dict[str, Any]] = vars(getcurrent()).setdefault("locals", {})
        return of.setdefault(key, {})

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: object) -> None:
        self.__dict__[name] = value


local: Final = Local()


class CallerOfThread(Local):
    """Takes the place of callers.this_thread."""

    def __getattr__(self, name: str) -> Any:
        return self.__dict__.get(name)


class Executor:
    """See ThreadPoolExecutor: each call has a new thread of the process that submits it."""

    def __init__(self, size: int = 0, thread_name_prefix: str = "") -> None:
        self._name = thread_name_prefix

    def submit(self, call: Callable[..., object], *args: object) -> Future[Any]:
        """See ThreadPoolExecutor. Its callers don't use what it returns."""
        Thread(call, self._name, args).start()
        return Future()


def monotonic() -> float:
    """Read the monotonic clock of the machine of the running process.

    After the end of the universe, a finalizer may ask; every lease has ended by then. A real thread
    that an earlier test has left running gets the real time.
    """
    scheduler = Scheduler.current
    if threading.get_ident() != scheduler.real_thread:
        return real_monotonic()
    if scheduler.process is None and scheduler.is_over:
        return math.inf
    return running_process().machine.monotonic()


def running_process() -> Process:
    """Return the process whose code runs."""
    process = Scheduler.current.process
    assert process is not None
    return process


def current_thread() -> object:
    """Return the simulated thread, or the real one, in which event loops run."""
    return threading.current_thread() if Scheduler.current.thread is None else local.thread


def wait_for_futures(futures: list[Future[Any]], timeout: float | None) -> None:
    """See concurrent.futures.wait(), for one future."""
    [future] = futures
    done = Event()
    future.add_done_callback(lambda _: done.set())
    done.wait(timeout)


def wall_clock() -> float:
    """Read the wall clock of the machine of the running process."""
    return running_process().machine.wall_clock()


def microseconds() -> int:
    """Read that clock as the lock table does."""
    return int(wall_clock() * 1_000_000)


def urandom(size: int) -> bytes:
    """Return bytes that depend on the seed only."""
    return Scheduler.current.random.randbytes(size)


THREADING: Final = SimpleNamespace(
    Thread=Thread,
    Lock=Lock,
    RLock=RLock,
    Event=Event,
    local=Local,
    current_thread=current_thread,
    TIMEOUT_MAX=threading.TIMEOUT_MAX,
)
CONCURRENT: Final = SimpleNamespace(futures=SimpleNamespace(wait=wait_for_futures))
TIME: Final = SimpleNamespace(
    monotonic=monotonic, time=wall_clock, time_ns=lambda: round(wall_clock() * 1_000_000_000)
)
