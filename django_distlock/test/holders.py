"""Hold a lock during a test as another worker would, and shorten the waits for it."""

import math
from contextlib import AbstractContextManager, nullcontext, suppress

from django_distlock import clocks
from django_distlock.arguments import LONGEST, printable, validate_seconds, validate_text
from django_distlock.concurrency.store_calls import StoreCalls, aask
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.leases.request import new_owner
from django_distlock.locks.acquisition import Acquisition
from django_distlock.locks.arguments import BackendTtl, refuse_template
from django_distlock.locks.contention import describe_contention
from django_distlock.locks.waiting import Waiter, before_waits
from django_distlock.records import LeaseClaim
from django_distlock.semaphores.validation import validate_semaphore

from .contexts import AsyncTestContextDecorator
from .holdings import HoldingElsewhere, elsewhere
from .store_calls import ask_store


class held_elsewhere(AsyncTestContextDecorator):  # noqa: N801 - used like a function
    """Hold a lock as another worker would: the tested code finds it contended.

    Use it as `with`, as `async with`, or as a decorator of a function, sync or async, or of a
    `TestCase`, for each of its tests. It acquires the lock at the start and releases it at the end.
    If the lock is held at the start, that is an `AssertionError`.

    - `holder`: what people see of the other worker.
    - `ttl`: the seconds of its lease, the store's by default. The lease is renewed when a thread or
      task waits for the lock.
    - `release_after`: the seconds of a wait after which the other worker releases the lock. By
      default, it never does.

    A wait for the lock takes no time, in any thread or task of this process. It is refused at once,
    as if its `timeout` had passed, and `waited` is the timeout. If the wait is longer than
    `release_after`, the waiter gets the lock at once, and `waited` is `release_after`. A wait
    without a timeout for a lock that is never released is an `AssertionError`.
    """

    def __init__(
        self,
        semaphore: str,
        *,
        holder: str = "another worker",
        backend: str = "default",
        ttl: float | BackendTtl | None = BackendTtl.DEFAULT,
        release_after: float | None = None,
    ) -> None:
        super().__init__()
        refuse_template(semaphore)
        self._semaphore = validate_semaphore(semaphore)
        self._holder = printable(validate_text("holder", holder))
        self._backend = backend
        self._ttl = ttl
        self._release_after = math.inf
        if release_after is not None:
            self._release_after = validate_seconds("release_after", release_after, 0, LONGEST)
        self._holdings: list[HoldingElsewhere] = []

    def enable(self) -> None:
        self._begin(ask_store(self._backend, self._acquire))

    async def __aenter__(self) -> None:
        self._begin(await aask(self._backend, self._acquire))

    def disable(self) -> None:
        holding = self._end()
        ask_store(holding.backend, holding.release)

    def leave(self, error: BaseException | None) -> None:
        with _unless_failed(error):
            self.disable()

    async def aleave(self, error: BaseException | None) -> None:
        holding = self._end()
        with _unless_failed(error):
            await aask(holding.backend, holding.release)

    async def _acquire(self, calls: StoreCalls) -> HoldingElsewhere:
        store = lock_backends[self._backend]
        ttl = store.ttl if isinstance(self._ttl, BackendTtl) else store.validate_ttl(self._ttl)
        owner = new_owner()
        grant = await calls.acquire(self._semaphore, owner, ttl, self._holder)
        if not grant:
            raise AssertionError(
                "held_elsewhere() needs a lock that nobody holds. "
                + describe_contention(self._semaphore, grant)
            )
        claim = LeaseClaim(self._semaphore, owner, ttl, grant.token, self._holder)
        return HoldingElsewhere(store.alias, claim, release_after=self._release_after)

    def _begin(self, holding: HoldingElsewhere) -> None:
        self._holdings.append(holding)
        elsewhere[holding.name] = holding

    def _end(self) -> HoldingElsewhere:
        holding = self._holdings.pop()
        elsewhere.pop(holding.name, None)
        return holding


def _unless_failed(error: BaseException | None) -> AbstractContextManager[object]:
    """Suppress an error of the store if the block has failed already."""
    return nullcontext() if error is None else suppress(LockBackendUnavailable)


async def let_time_pass(acquisition: Acquisition, waiter: Waiter) -> None:
    """Count the wait for a lock that held_elsewhere() holds as over."""
    holding = elsewhere.get((acquisition.backend, acquisition.semaphore))
    if holding is None or not await waiter.ask(holding.is_held):
        return
    timeout = acquisition.deadline - acquisition.began
    if timeout == holding.release_after == math.inf:
        raise AssertionError(
            f"This would wait for {acquisition.semaphore!r} for ever: it has no timeout, and "
            "held_elsewhere() never releases it. Give one of them: timeout=…, release_after=…"
        )
    if holding.release_after < round(timeout, 6):  # without the rounding errors of a clock
        await waiter.ask(holding.release)
    waited = clocks.monotonic() - acquisition.began
    acquisition.pass_time(max(0.0, min(timeout, holding.release_after) - waited))


before_waits.append(let_time_pass)
