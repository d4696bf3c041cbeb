"""Workers whose locks and errors Sentry records. Its library can't be switched off again."""

import asyncio
import logging
import os
from functools import partial
from itertools import chain
from typing import Any
from unittest import mock


def collect_envelopes(**options: Any) -> list[Any]:
    """Start Sentry, with all that records anything; return where it puts what it would send."""
    import sentry_sdk
    from sentry_sdk.integrations.django import DjangoIntegration
    from sentry_sdk.integrations.logging import LoggingIntegration
    from sentry_sdk.integrations.redis import RedisIntegration
    from sentry_sdk.integrations.threading import ThreadingIntegration
    from sentry_sdk.transport import Transport

    sent: list[Any] = []

    class Collecting(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            sent.extend(item.payload.json for item in envelope.items)

    logging.getLogger("django_distlock").setLevel(logging.DEBUG)
    sentry_sdk.init(
        dsn="http://key@127.0.0.1/1",
        transport=Collecting,
        default_integrations=False,
        attach_stacktrace=True,
        enable_logs=True,
        send_default_pii=True,
        traces_sample_rate=1.0,
        integrations=[
            DjangoIntegration(),
            RedisIntegration(),
            ThreadingIntegration(),
            LoggingIntegration(level=logging.DEBUG, event_level=logging.WARNING),
            *options.pop("integrations", []),
        ],
        **options,
    )
    return sent


def record(*stores: str) -> dict[str, list[Any]]:
    """Return what is sent of losses, with semaphores hidden and shown, and where owners are."""
    from django_distlock.integrations.sentry import DistlockIntegration
    from tests.support.documentation import example

    with mock.patch("sentry_sdk.init") as init:
        example("integrations/sentry.md", "Sentry")
    found = {"hidden": collect_envelopes(integrations=init.call_args.kwargs["integrations"])}
    lose()
    found["shown"] = collect_envelopes(integrations=[DistlockIntegration(semaphores=True)])
    lose()
    return found | {"owners": show_owners(*stores)}


def lose() -> None:
    """Lose two leases in a request, one after the end of its request, and one elsewhere.

    Then fail to release one, which is logged with the error; and fail in other ways.
    """
    import sentry_sdk
    from django.test import RequestFactory

    from django_distlock import LockBackendUnavailable, LockLost, distributed_lock
    from django_distlock.backends.memory import MemoryBackend
    from django_distlock.leases.registry import current_registry
    from django_distlock.views.answers import answer_to
    from tests.support.holders import acquire, renew_now, take_away

    @distributed_lock("<customer_id>collectPayment", backend="memory", label="payments")
    def collect(customer_id: str) -> None:
        lease = current_registry().find("memory", f"{customer_id}collectPayment")
        assert lease
        take_away(lease)
        renew_now(lease)

    with sentry_sdk.isolation_scope() as request:
        request.set_tag("url", "/collect/")
        sentry_sdk.add_breadcrumb(category="site", message="Collecting.")
        for customer_id in ("1234", "5678"):
            try:
                collect(customer_id)
            except LockLost as error:
                answer_to(RequestFactory().get("/"), error)
                sentry_sdk.capture_exception(error)
    with sentry_sdk.isolation_scope() as request:
        request.set_tag("url", "/later/")
        outlasting = acquire("memory", f"{4711}later")
    take_away(outlasting)
    renew_now(outlasting)
    lease = acquire("memory", f"{4711}refund")
    take_away(lease)
    lease.release()
    down = LockBackendUnavailable("down")
    with mock.patch.object(MemoryBackend, "release", side_effect=down):
        with distributed_lock(f"{4711}audit", backend="memory") as unreleased:
            pass
    unreleased.release()
    log_for_others()
    fail()
    sentry_sdk.flush()


def log_for_others() -> None:
    """Log a line that stands for another one, which was left out; and one without fields."""
    from django_distlock.logs import Window

    logger, window = logging.getLogger("django_distlock.renewal"), Window()
    left_out, shown = (
        logger.makeRecord(
            *(logger.name, logging.WARNING, __file__, 1, "%r is late.", (semaphore,), None),
            extra={"semaphore": semaphore},
        )
        for semaphore in (f"{4711}left", f"{4711}shown")
    )
    window.leave_out(left_out)
    window.complete(shown)
    logger.handle(shown)
    others = logging.getLogger("django_distlock.others")  # which leaves out nothing
    others.warning("A line that isn't long about %r", f'{4711}event\'s "day"')


def fail() -> None:
    """Raise errors that don't know their semaphore, groups of errors, and errors in a cycle."""
    import sentry_sdk

    from django_distlock import LockError, LockNotAcquired, distributed_lock, release_lock
    from django_distlock.semaphores.validation import InvalidSemaphore

    lock = partial(distributed_lock, backend="memory")

    @lock("<customer_id>pay")
    def fail_in_a_call(customer_id: str) -> None:
        raise RuntimeError("An error of the site")

    def raise_one_of_its_group() -> None:
        try:
            asyncio.run(claim_twice(f"{4711}cycle"))
        except* LockNotAcquired as group:
            raise group.exceptions[0]  # noqa: B904 - its context is the group

    def fail_after_a_refusal() -> None:
        with lock(f"{4711}context"):
            try:
                raise LockNotAcquired(f"{f'{4711}other'!r} is held", semaphore=f"{4711}other")
            except LockNotAcquired:
                raise RuntimeError("Another error")  # noqa: B904 - the first is its context

    for failing in (
        lambda: fail_in_a_call("4711"),
        lambda: wait_for_itself(f"{4711}wait"),
        lambda: release_lock(f"{4711}none", backend="memory"),
        lambda: asyncio.run(claim_twice(f"{4711}group")),
        lambda: asyncio.run(claim_twice(f"{4711}\0")),
        raise_one_of_its_group,
        fail_after_a_refusal,
    ):
        try:
            failing()
        except (RuntimeError, LockError, InvalidSemaphore, ExceptionGroup) as error:
            sentry_sdk.capture_exception(error)


def wait_for_itself(semaphore: str) -> None:
    """Wait for a lock that this thread holds."""
    from django_distlock import distributed_lock

    lock = partial(distributed_lock, semaphore, backend="memory", timeout=1)
    with lock(), lock():
        pass


async def claim_twice(semaphore: str) -> None:
    """Acquire a lock, and again in a task, which is refused."""
    from django_distlock import distributed_lock

    async def claim() -> None:
        async with distributed_lock(semaphore, backend="memory"):
            pass

    async with distributed_lock(semaphore, backend="memory"), asyncio.TaskGroup() as group:
        group.create_task(claim())


def show_owners(*stores: str) -> list[str]:
    """Use each store, and fail in it; return where Sentry has the owner.

    The last place is a message of this function's, which shows that the owner would be found.
    """
    import sentry_sdk
    from django.db import transaction

    from django_distlock import LockBackendUnavailable, distributed_lock
    from django_distlock.backends.memory import MemoryBackend
    from django_distlock.records import Renewal, RenewalOutcome
    from tests.support.concurrency import Interrupted
    from tests.support.holders import acquire, renew_now, take_away
    from tests.support.known_owners import SECRET, Interrupter, known_owner

    def refuse(store: MemoryBackend, leases: list[Any]) -> dict[str, Renewal]:
        return {lease.owner: Renewal(RenewalOutcome.HELD) for lease in leases}

    sent = collect_envelopes(_experiments={"record_sql_params": True})
    semaphore = f"interrupted {os.getpid()}"  # it may stay locked

    def work(store: str) -> None:
        with distributed_lock(semaphore, backend=store) as lease, transaction.atomic():
            lease.renew()

    async def awork(store: str) -> None:
        async with distributed_lock(semaphore, backend=store) as lease:
            await lease.arenew()

    with mock.patch("django_distlock.locks.acquisition.new_owner", known_owner):
        for store in stores:
            with sentry_sdk.start_transaction(op="test", name=store):
                work(store)
                asyncio.run(awork(store))
                sentry_sdk.capture_message(store)
                try:
                    with Interrupter(10, Interrupted).armed():
                        work(store)
                except (Interrupted, LockBackendUnavailable) as error:
                    sentry_sdk.capture_exception(error)
        with mock.patch.object(MemoryBackend, "renew", refuse):  # which is logged
            lease = acquire("memory")
            renew_now(lease)
        take_away(lease)
        lease.release()
    sentry_sdk.capture_message(SECRET)
    sentry_sdk.flush()
    return [place for item in sent for place in places(item, SECRET)]


def places(item: Any, text: str, path: str = "") -> list[str]:
    """Return the paths in what is sent that lead to a text with this one."""
    if isinstance(item, dict):
        found = [places(each, text, f"{path}.{key}") for key, each in item.items()]
        return [f"{path} as key" for key in item if text in key] + list(chain(*found))
    if isinstance(item, list):
        return [place for each in item for place in places(each, text, f"{path}[]")]
    return [path] if text in str(item) else []
