"""Client processes, whose threads or tasks use locks through the package's public functions."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from django_distlock import LockBackendUnavailable, LockError, aacquire_lock, acquire_lock
from django_distlock.backends.sync_driver import run_sync
from django_distlock.leases.owned_lease import OwnedLease

from .event_loop import EventLoop
from .installation import alias_of
from .machines import Machine, Process
from .scheduler import Scheduler, SimulatedThread
from .threads import local

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django_distlock.lease import Lease

    from .recording import Recorder

TIMEOUTS: Final = (0, 0, 0.3, 2.0, 2.0, 15.0)


@dataclass(frozen=True)
class Habits:
    """What the workers of a universe do."""

    semaphores: Sequence[str]
    ttls: Sequence[float]
    uses: int
    """How often each of them uses a lock."""
    longest_hold: float
    longest_rest: float
    ends_at: float
    """When they stop, even if they did not use it so often."""


class ThreadCalls:
    """The public functions for sync code; none of these coroutines suspends."""

    async def acquire(self, semaphore: str, **options: Any) -> Lease | None:
        return acquire_lock(semaphore, **options)

    async def renew(self, lease: Lease) -> None:
        lease.renew()

    async def release(self, lease: Lease) -> bool:
        return lease.release()

    async def sleep(self, seconds: float) -> None:
        Scheduler.current.sleep(seconds)


class TaskCalls:
    """Their async twins."""

    async def acquire(self, semaphore: str, **options: Any) -> Lease | None:
        return await aacquire_lock(semaphore, **options)

    async def renew(self, lease: Lease) -> None:
        await lease.arenew()

    async def release(self, lease: Lease) -> bool:
        return await lease.arelease()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Worker:
    """A thread or a task that acquires locks, one after the other."""

    def __init__(
        self,
        name: str,
        process: Process,
        alias: str,
        habits: Habits,
        recorder: Recorder,
        calls: ThreadCalls | TaskCalls,
    ) -> None:
        self.name = name
        self._process = process
        self._alias = alias
        self._habits = habits
        self._recorder = recorder
        self._calls = calls
        self._scheduler = Scheduler.current

    async def work(self) -> None:
        """Acquire, hold and release locks until the end."""
        habits, random = self._habits, self._scheduler.random
        for _ in range(habits.uses):
            if self._scheduler.now >= habits.ends_at:
                return
            try:
                await self._calls.sleep(habits.longest_rest * random.random())
                await self._use(random.choice(habits.semaphores))
            except asyncio.CancelledError:
                self._recorder.note(f"{self.name} was cancelled.")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a problem
                self._recorder.problems.append(f"{self.name} got {error!r}")
                return

    async def _use(self, semaphore: str) -> None:
        random = self._scheduler.random
        renewed = random.random() < 0.7
        lease = await self._acquire(semaphore, renew=renewed)
        if lease is None:
            return
        try:
            await self._hold(lease, self._habits.longest_hold * random.random(), renewed=renewed)
        except asyncio.CancelledError:
            await self._release(lease)
            raise
        await self._release(lease)

    async def _acquire(self, semaphore: str, *, renew: bool) -> OwnedLease | None:
        """Try to acquire; None if it was refused, or the store could not be asked."""
        recorder, random = self._recorder, self._scheduler.random
        terms = {"timeout": random.choice(TIMEOUTS), "ttl": random.choice(self._habits.ttls)}
        number = recorder.begin(self.name, "acquire", semaphore, background=renew, **terms)
        try:
            lease = await self._calls.acquire(semaphore, renew=renew, backend=self._alias, **terms)
        except LockBackendUnavailable:
            return None
        if lease is None:
            recorder.end(number, "refused")
            recorder.refused(number, f"{self._process.name} {self.name}")
            return None
        assert isinstance(lease, OwnedLease)
        recorder.end(number, "ok", owner=lease.owner, token=lease.token)
        recorder.granted(self._process, lease)
        return lease

    async def _hold(self, lease: OwnedLease, seconds: float, *, renewed: bool) -> None:
        """Use what the lock protects, and look at the lease now and then."""
        random = self._scheduler.random
        for _ in range(2):
            await self._increment(lease, seconds / 8)
            await self._calls.sleep(seconds / 4)
            self._check(lease)
            if not renewed and random.random() < 0.5:
                await self._renew(lease)

    def _step(self, kind: Literal["check", "renew", "release"], lease: OwnedLease) -> int:
        return self._recorder.begin(
            self.name, kind, lease.semaphore, owner=lease.owner, token=lease.token, ttl=lease.ttl
        )

    def _check(self, lease: OwnedLease) -> None:
        number = self._step("check", lease)
        self._recorder.end(number, "ok" if lease.held else "lost")

    async def _renew(self, lease: OwnedLease) -> None:
        number = self._step("renew", lease)
        try:
            await self._calls.renew(lease)
        except LockBackendUnavailable:
            return
        except LockError:
            # The store may have renewed it, and its answer may have come after the end.
            self._recorder.end(number, "lost" if lease.remaining else "unknown")
        else:
            self._recorder.end(number, "ok")

    async def _release(self, lease: OwnedLease) -> None:
        number = self._step("release", lease)
        try:
            released = await self._calls.release(lease)
        except LockBackendUnavailable:
            return
        self._recorder.end(number, "ok" if released else "lost")

    async def _increment(self, lease: OwnedLease, seconds: float) -> None:
        """Increment what the lock protects, which takes some time."""
        register = self._recorder.register(lease.semaphore)
        number = self._recorder.begin(self.name, "increment", lease.semaphore, token=lease.token)
        value = register.read(lease.token)
        await self._calls.sleep(seconds)
        if value is not None and register.write(lease.token, value + 1):
            self._recorder.end(number, "ok", value=value + 1)
        else:
            self._recorder.end(number, "refused")


class Client:
    """A client process with its workers."""

    def __init__(self, number: int, workers: int, habits: Habits, recorder: Recorder) -> None:
        scheduler = Scheduler.current
        random = scheduler.random
        self.name = alias_of(number)
        machine = Machine(self.name, 1_000.0 * (number + 1), random.uniform(-3600, 3600))
        self.process = Process(self.name, machine)
        self.tasks: list[asyncio.Task[None]] = []
        self.workers: list[Worker] = []
        is_async = random.random() < 0.4
        loop = EventLoop(self.process) if is_async else None
        for index in range(workers):
            calls = ThreadCalls() if loop is None else TaskCalls()
            name = f"{self.name}/{index}"
            worker = Worker(name, self.process, self.name, habits, recorder, calls)
            self.workers.append(worker)
            if loop is not None:
                self.tasks.append(loop.start(worker.work(), name))
            else:
                self._start_thread(worker)
        self._recorder = recorder

    def _start_thread(self, worker: Worker) -> None:
        def run() -> None:
            local.thread = worker
            run_sync(worker.work())

        thread = SimulatedThread(self.process, run)
        self.process.threads.append(thread)
        thread.start()

    def kill(self) -> None:
        """Kill it."""
        self._recorder.note(f"{self.name} is killed.")
        self.process.kill()
        for worker in self.workers:
            self._recorder.begin(worker.name, "exit", "")

    def cancel_a_task(self) -> None:
        """Cancel what one of its tasks does, if it has tasks."""
        loop = self.process.loop
        if self.tasks and loop is not None:
            task = Scheduler.current.random.choice(self.tasks)
            loop.call_soon_threadsafe(task.cancel)
