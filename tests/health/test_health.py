"""`django_distlock.health`: whether locks can be had."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections
from django.test import override_settings

from django_distlock import InvalidLockBackend, clocks, health, lock_backends
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.health import HealthStatus
from django_distlock.leases.probe import SEMAPHORE
from django_distlock.leases.request import new_owner
from django_distlock.models import Lock
from django_distlock.records import Pause, Refusal
from tests.support.databases import committed, on_each_server, through_proxy
from tests.support.documentation import example
from tests.support.lock_servers import locks_by
from tests.support.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.test import RequestFactory

    from tests.support.scripted_store import ScriptedBackend

DATABASE = "django_distlock.backends.database.DatabaseBackend"
SECRET = "a secret that is shown to nobody"
STORES = [
    "memory",
    "minimal",
    "default",
    *(
        pytest.param(name, marks=pytest.mark.needs(name))
        for name in ("postgresql", "mariadb", "redis", "memcached", "lock_server")
    ),
]


def in_loop(alias: str) -> health.StoreHealth:
    """Check in an event loop."""
    return asyncio.run(health.acheck(alias))


either_way = pytest.mark.parametrize("check", [health.check, in_loop])


@committed
@pytest.mark.parametrize("alias", STORES)
@either_way
def test_store_that_grants_locks_is_up(
    alias: str, check: Callable[[str], health.StoreHealth]
) -> None:
    """The result is true, and its lock is released."""
    began = clocks.monotonic()
    found = check(alias)
    assert (found.alias, found.status, found.ok) == (alias, HealthStatus.UP, True)
    assert found
    assert 0 < found.latency <= clocks.monotonic() - began
    assert check(alias).status is HealthStatus.UP


@committed
@pytest.mark.needs("postgresql")
def test_checks_leave_one_released_row() -> None:
    """However many processes check however often."""
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(health.check, ["postgresql"] * 40))
    assert {each.ok for each in found} == {True}
    assert [*lock_backends["postgresql"].held()] == []
    rows = Lock.objects.using("postgresql")
    assert [row.semaphore for row in rows.released()] == [SEMAPHORE] == [*map(str, rows.all())]


@pytest.mark.once
@either_way
def test_store_is_up_while_another_process_checks_it(
    check: Callable[[str], health.StoreHealth],
) -> None:
    """It answers."""
    store = lock_backends["memory"]
    assert store.acquire(SEMAPHORE, new_owner(), 1, "another check")
    found = check("memory")
    assert (found.status, found.ok) == (HealthStatus.CONTENDED, True)
    store.clear()  # type: ignore[attr-defined]


@pytest.mark.once
def test_paused_store_is_not_down(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site must not be taken out of service because its operators pause its locks."""
    pause = Pause("", datetime.now(UTC), None, "deploying")
    refusal = Refusal(reason=pause.refusal)
    monkeypatch.setattr(scripted, "acquire", lambda *arguments: refusal)
    found = health.check()
    assert (found.status, found.ok, found.detail) == (
        HealthStatus.PAUSED,
        True,
        "paused: deploying",
    )


@pytest.mark.once
def test_pause_is_seen_whatever_its_prefix() -> None:
    """One of other semaphores is no matter of the probe."""
    store = lock_backends["memory"]
    store.pause("", reason="deploying")
    assert health.check("memory").status is HealthStatus.PAUSED
    store.resume("")
    store.pause("customer:")
    assert health.check("memory").status is HealthStatus.UP
    store.resume("customer:")


@committed
@pytest.mark.once
def test_endless_transaction_is_not_begun() -> None:
    """Without autocommit, SQLite would keep its only write lock after the check."""
    connection = connections["default"]
    connection.set_autocommit(False)
    try:
        found = health.check()
        assert (found.status, connection.connection.in_transaction) == (HealthStatus.DOWN, False)
    finally:
        connection.set_autocommit(True)
    assert "autocommit" in found.detail.lower()


@pytest.mark.once
@pytest.mark.parametrize("action", ["acquire", "release"])
def test_store_that_fails_is_down(scripted: ScriptedBackend, action: str) -> None:
    """The result says why, without credentials."""
    scripted.answer(action, LockBackendUnavailable("redis://user:password@host is gone"))
    found = health.check()
    assert (found.status, found.ok) == (HealthStatus.DOWN, False)
    assert not found
    assert found.detail == "redis://…@host is gone"


@pytest.mark.once
def test_store_that_forgets_its_grants_is_down(scripted: ScriptedBackend) -> None:
    """As one behind a proxy that sends each call to another server."""

    def forget() -> None:
        scripted.owner = ""

    scripted.answer("release", forget)
    found = health.check()
    assert (found.status, found.detail) == (
        HealthStatus.DOWN,
        "granted a lock, and had forgotten it a moment later",
    )


@either_way
@pytest.mark.once
def test_store_that_is_not_there_is_down(
    unused_port: int, check: Callable[[str], health.StoreHealth]
) -> None:
    """Nothing listens at its address; the detail doesn't show the secret."""
    options = {"address": f"{HOST}:{unused_port}", "secret": SECRET, "store_timeout": 0.5}
    with locks_by(options):
        found = check("lock_server")
    assert (found.status, found.ok) == (HealthStatus.DOWN, False)
    assert f"{HOST}:{unused_port}" in found.detail
    assert SECRET not in repr(found)


@committed
@on_each_server
@pytest.mark.once
def test_check_ends_in_time_whatever_becomes_of_the_packets(alias: str) -> None:
    """A readiness probe must not hang."""
    options = {"using": alias, "store_timeout": 0.1}
    with through_proxy(alias) as proxy, proxy.swallowing():
        with override_settings(DISTLOCK={"jobs": {"BACKEND": DATABASE, "OPTIONS": options}}):
            found = health.check("jobs")
    assert found.status is HealthStatus.DOWN
    assert 0.1 <= found.latency < 10


@pytest.mark.once
def test_async_check_ends_in_time_though_no_thread_is_free(
    scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that hangs may occupy all threads of its pool."""
    monkeypatch.setattr("django_distlock.leases.probe.SHORTEST_LIMIT", 0)
    monkeypatch.setattr("django_distlock.leases.probe.SPARE", 0)
    scripted.store_timeout = 0.05
    goes_on = threading.Event()
    scripted.answer("acquire", lambda: goes_on.wait(60))

    async def check() -> health.StoreHealth:
        found = await health.acheck()
        goes_on.set()
        return found

    found = asyncio.run(check())
    assert (found.status, found.detail) == (
        HealthStatus.DOWN,
        "DISTLOCK['default']: no answer in 0.05 seconds",
    )


@pytest.mark.once
@either_way
def test_unknown_store_is_an_error_of_the_caller(
    check: Callable[[str], health.StoreHealth],
) -> None:
    """Not of the store."""
    with pytest.raises(InvalidLockBackend, match=r"^DISTLOCK\['nowhere'\]: not configured"):
        check("nowhere")


@pytest.mark.once
def test_sync_check_does_not_block_an_event_loop() -> None:
    """Its twin does the same there."""

    async def check() -> None:
        health.check("memory")

    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(check())


@pytest.mark.once
def test_probe_has_a_ttl_that_the_store_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's own, if that is shorter than a probe needs."""
    asked: list[Any] = []
    path = "django_distlock.backends.memory.MemoryBackend"

    def note(store: Any, semaphore: str, owner: str, ttl: float | None, holder: str) -> Any:
        asked.append((ttl, "health check" in holder))
        return Refusal()

    monkeypatch.setattr(path + ".acquire", note)
    for ttl in (None, 60, 0.5):
        with override_settings(DISTLOCK={"default": {"BACKEND": path, "OPTIONS": {"ttl": ttl}}}):
            assert health.check()
    assert asked == [(5, True), (5, True), (0.5, True)]


@pytest.mark.once
@pytest.mark.parametrize(("answer", "status"), [(None, 200), ("is gone", 503)])
def test_documented_view_answers_a_readiness_probe(
    scripted: ScriptedBackend, rf: RequestFactory, answer: str | None, status: int
) -> None:
    """By its status."""
    view = example("reference/health.md", "A view of your own").ready
    if answer is not None:
        scripted.answer("acquire", LockBackendUnavailable(answer))
    response = view(rf.get("/ready/"))
    assert response.status_code == status
    assert json.loads(response.content) == {"locks": "up" if status == 200 else "down"}
