"""Acquire and release locks, and decorate functions and views."""

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, TypeVar, assert_type

from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views import View

from django_distlock import (
    InvalidLockBackend,
    InvalidSemaphore,
    Lease,
    LockBackendUnavailable,
    LockError,
    LockLost,
    LockNotAcquired,
    LockNotHeld,
    LockNotSupported,
    aacquire_lock,
    acquire_lock,
    arelease_lock,
    distributed_lock,
    release_lock,
    skip,
)

T = TypeVar("T")


def acquire_and_release() -> None:
    """The functions, and all that a lease shows."""
    lease = acquire_lock(
        "1234collectPayment",
        timeout=None,
        ttl=30,
        renew=True,
        label="night run",
        backend="default",
        reentrant=True,
        min_hold=5,
        max_hold=3600.0,
    )
    assert_type(lease, Lease | None)
    if not lease:
        return
    assert_type(lease, Lease)
    assert_type(lease.semaphore, str)
    assert_type(lease.backend, str)
    assert_type(lease.template, str)
    assert_type(lease.holder, str)
    assert_type(lease.token, int | None)
    assert_type(lease.ttl, float | None)
    assert_type(lease.acquired_at, datetime)
    assert_type(lease.expires_at, datetime | None)
    assert_type(lease.waited, float)
    assert_type(lease.held, bool)
    assert_type(lease.held_for, float)
    assert_type(lease.remaining, float)
    lease.check()
    lease.renew()
    assert_type(lease.release(), bool)
    assert_type(release_lock(lease), bool)
    assert_type(release_lock("1234collectPayment", backend="jobs"), bool)


async def acquire_and_release_in_async_code() -> None:
    """The same, with the async twins."""
    assert_type(await aacquire_lock("1234collectPayment", ttl=None), Lease | None)
    if lease := await aacquire_lock("1234collectPayment"):
        await lease.acheck()
        await lease.arenew()
        assert_type(await lease.arelease(), bool)
    assert_type(await arelease_lock("1234collectPayment"), bool)


def hold() -> int:
    """A block never swallows an exception, so the code after it may rely on what it did."""
    with distributed_lock("1234collectPayment", timeout=10) as lease:
        assert_type(lease, Lease)
        return 1


async def hold_in_async_code() -> int:
    """The same."""
    async with distributed_lock("1234collectPayment") as lease:
        assert_type(lease, Lease)
        return 1


def hold_by(lock: distributed_lock) -> None:
    """As an annotation, it is a lock without on_conflict."""
    with lock as lease:
        lease.check()


def instead(customer_id: int, *, retry: bool = True) -> str:
    """Stand in for a contended call."""
    return f"{customer_id} is being served, {retry=}"


async def instead_in_async_code(customer_id: int, *, retry: bool = True) -> str:
    """Stand in for a contended call."""
    return instead(customer_id, retry=retry)


def semaphore_of(customer_id: int, **options: object) -> str:
    """Make the semaphore of a call."""
    return f"{customer_id}collectPayment"


@distributed_lock("<int:customer_id>collectPayment")
def collect(customer_id: int, *, retry: bool = True) -> bytes:
    """Collect a payment."""
    return b""


@distributed_lock("<customer_id>collectPayment", on_conflict=skip)
def collect_or_skip(customer_id: int, *, retry: bool = True) -> bytes:
    """Collect a payment."""
    return b""


@distributed_lock(semaphore_of, on_conflict=instead)
def collect_or_tell(customer_id: int, *, retry: bool = True) -> bytes:
    """Collect a payment."""
    return b""


@distributed_lock("<customer_id>collectPayment", label="collect")
async def acollect(customer_id: int, *, retry: bool = True) -> bytes:
    """Collect a payment."""
    return b""


@distributed_lock("<customer_id>collectPayment", on_conflict=skip)
async def acollect_or_skip(customer_id: int, *, retry: bool = True) -> bytes:
    """Collect a payment."""
    return b""


@distributed_lock("<customer_id>collectPayment", on_conflict=instead)
async def acollect_or_tell(customer_id: int, *, retry: bool = True) -> bytes:
    """Collect a payment."""
    return b""


@distributed_lock("<customer_id>collectPayment", on_conflict=instead_in_async_code)
async def acollect_or_await(customer_id: int, *, retry: bool = True) -> bytes:
    """Collect a payment."""
    return b""


@distributed_lock("report", on_conflict=skip)
def in_list(value: T) -> list[T]:
    """Stay generic."""
    return [value]


def call() -> None:
    """Names of parameters, and results."""
    assert_type(collect(1234, retry=False), bytes)
    assert_type(collect_or_skip(customer_id=1234), bytes | None)
    assert_type(collect_or_tell(1234), bytes | str)
    assert_type(in_list(1), list[int] | None)


async def call_in_async_code() -> None:
    """The results are awaited; those of a sync on_conflict, too."""
    as_coroutine: Callable[[int], Coroutine[Any, Any, bytes]] = acollect
    assert_type(await as_coroutine(1234), bytes)
    assert_type(await acollect(1234, retry=False), bytes)
    assert_type(await acollect_or_skip(customer_id=1234), bytes | None)
    assert_type(await acollect_or_tell(1234), bytes | str)
    assert_type(await acollect_or_await(1234), bytes | str)


class Reports:
    """Methods of every kind."""

    @distributed_lock("<self.name>:build", on_conflict=skip)
    def build(self, pages: int) -> str:
        """Build it."""
        return "built" * pages

    @distributed_lock("<self.name>:build")
    async def abuild(self, pages: int) -> str:
        """Build it."""
        return "built" * pages

    @classmethod
    @distributed_lock("<name>:make")
    def make(cls, name: str) -> "Reports":
        """Make one."""
        return cls()

    @staticmethod
    @distributed_lock("<name>:check")
    def check(name: str) -> bool:
        """Check one."""
        return bool(name)


async def use(reports: Reports) -> None:
    """They are bound as though they were not decorated."""
    assert_type(reports.build(pages=1), str | None)
    assert_type(await reports.abuild(1), str)
    assert_type(Reports.make("sales"), Reports)
    assert_type(reports.check(name="sales"), bool)


def busy(request: HttpRequest, customer_id: int) -> HttpResponse:
    """Answer a contended request."""
    return HttpResponse(b"busy", status=409)


@distributed_lock("<int:customer_id>collectPayment", http=True, on_conflict=busy)
def collect_view(request: HttpRequest, customer_id: int) -> HttpResponse:
    """A view."""
    return HttpResponse(b"collected")


@distributed_lock("<request.user.pk>:export")
async def export_view(request: HttpRequest) -> HttpResponse:
    """An async view."""
    return HttpResponse(b"exported")


@method_decorator(distributed_lock("<pk>:update"), name="dispatch")
class UpdateView(View):
    """A class-based view."""

    @distributed_lock("<pk>:post", on_conflict=busy)
    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Update it."""
        return HttpResponse(b"updated")


async def answer(request: HttpRequest) -> None:
    """Views stay views."""
    view: Callable[[HttpRequest, int], HttpResponse] = collect_view
    assert_type(view(request, 1), HttpResponse)
    assert_type(await export_view(request), HttpResponse)
    assert_type(UpdateView().post(request, pk=1), HttpResponse)


def handle(error: LockError) -> str | None:
    """What each error tells."""
    match error:
        case LockNotAcquired():
            assert_type(error.semaphore, str)
            assert_type(error.backend, str)
            assert_type(error.holder, str | None)
            assert_type(error.held_since, datetime | None)
            assert_type(error.expires_at, datetime | None)
            assert_type(error.seen_at, datetime | None)
            return error.reason
        case LockLost():
            assert_type(error.lease, Lease | None)
            return error.lease.semaphore if error.lease else None
        case LockBackendUnavailable():
            assert_type(error.reply_lost, bool)
            assert_type(error.lease, Lease | None)
        case LockNotHeld() | LockNotSupported() | _:
            pass
    return None


def configure(semaphore: str) -> None:
    """A wrong setting is no LockError, nor is a text that can't be a semaphore."""
    try:
        acquire_lock(semaphore, backend="jobs")
    except InvalidSemaphore as error:
        assert_type(error, InvalidSemaphore)
    except InvalidLockBackend as error:
        raise SystemExit(f"{error}") from error
