"""docs/how-to/limit-who-may-lock.md: the rights that it grants are enough, and no more."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import ProgrammingError, connections, transaction

from django_distlock import LockBackendUnavailable, distributed_lock, health, lock_backends
from django_distlock.backends.database import connections as own
from django_distlock.backends.database import listening
from django_distlock.models import LockEvent, LockWaiter
from tests.support.concurrency import until
from tests.support.databases import another_session, committed, on_each_server
from tests.support.documentation import DOCUMENTS, shown
from tests.support.holders import acquire
from tests.support.lock_rows import NOW
from tests.support.ports import HOST
from tests.support.redis_servers import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Server

PAGE = "how-to/limit-who-may-lock.md"
pytestmark = [pytest.mark.once, committed]
RIGHTS = re.compile(r"^~distlock:\* .*$", re.MULTILINE)
ROLES = ["shop_web", "shop_operator", "shop_report"]
GRANT = re.compile(r"GRANT ([A-Z, ]+)\s+ON (?!SEQUENCE)([a-z_, ]+) TO (\w+)")


def statements(alias: str) -> list[str]:
    """Return the page's statements, or those that do the same on MariaDB."""
    source = "".join(shown(PAGE, "sql"))
    if alias == "postgresql":
        return [each for each in source.split(";\n") if each]
    granted = [
        f"GRANT {rights} ON {table} TO {user}"
        for rights, tables, role in GRANT.findall(source)
        for table in tables.split(", ")
        for user in [role, *(["shop_operator"] if role == "shop_web" else [])]
    ]
    return [*(f"CREATE USER {role}" for role in ROLES), *granted]


@contextmanager
def roles(alias: str) -> Iterator[None]:
    """Create the page's roles, and drop them."""
    drop = ["DROP OWNED BY {0}; DROP ROLE {0}", "DROP USER {0}"][alias == "mariadb"]
    with another_session(alias) as session, session.cursor() as cursor:
        try:
            for statement in statements(alias):
                cursor.execute(statement)
            yield
        finally:
            for role in ROLES[::-1]:
                cursor.execute(drop.format(role))


@contextmanager
def connected_as(alias: str, role: str) -> Iterator[None]:
    """Have this process's connections, and the locks' own, use the role."""

    def close() -> None:
        listening.close_listeners()
        own.close_own_connections()
        connections[alias].close()

    close()
    with mock.patch.dict(connections.settings[alias], USER=role):
        try:
            yield
        finally:
            close()


@on_each_server
def test_role_of_the_site_can_do_all_but_pause_and_delete(alias: str) -> None:
    """It waits, too, and is guarded."""
    store: Any = lock_backends[alias]
    with roles(alias):
        with connected_as(alias, "shop_web"):
            use_locks(alias)
            for forbidden in (
                lambda: store.pause("1234"),
                lambda: [*store.purge_released(timedelta(0))],
            ):
                with pytest.raises(LockBackendUnavailable, match="denied"):
                    forbidden()
        with connected_as(alias, "shop_operator"):
            use_locks(alias)
            store.pause("1234")
            store.resume("1234")
            assert [lock.semaphore for lock in store.purge_released(timedelta(0))]
            LockEvent.objects.using(alias).all().delete()


def use_locks(alias: str) -> None:
    """Use whatever a site uses."""
    assert health.check(alias)
    store: Any = lock_backends[alias]
    lease = acquire(alias)
    waiting = ThreadPoolExecutor(1)
    successor = waiting.submit(acquire, alias, timeout=60)
    until(LockWaiter.objects.using(alias).exists)
    lease.renew()
    assert lease.release()
    lease = successor.result(60)
    waiting.shutdown()
    assert [lock.semaphore for lock in store.held()] == [lease.semaphore]
    assert store.force_release(lease.semaphore, lease.token)
    assert not lease.release()
    with distributed_lock("guarded", backend=alias), transaction.atomic(alias):
        [*LockEvent.objects.using(alias).all()]
    LockEvent(backend=alias, semaphore="a", kind="lost", at=NOW).save(using=alias)
    assert [*store.clear_stale()] == []


@pytest.mark.needs("postgresql")
def test_role_for_reports_cannot_read_the_owner() -> None:
    """But who holds what."""
    lease = acquire("postgresql")
    with roles("postgresql"), connected_as("postgresql", "shop_report"):
        with connections["postgresql"].cursor() as cursor:
            cursor.execute("SELECT semaphore, token FROM distlock_lock")
            assert cursor.fetchall() == [(lease.semaphore, lease.token)]
            with pytest.raises(ProgrammingError, match="permission denied"):
                cursor.execute("SELECT owner FROM distlock_lock")


@pytest.mark.needs("redis")
def test_user_of_one_site_cannot_take_locks_of_another(redis_server: Server, settings: Any) -> None:
    """Its rights have the site's KEY_PREFIX."""
    [rights] = RIGHTS.findall((DOCUMENTS / "how-to/use-redis.md").read_text("utf-8"))
    documented = re.search("`(~shop:\\S+)`", (DOCUMENTS / PAGE).read_text("utf-8"))
    assert documented is not None
    with connect(redis_server) as client:
        own_keys = rights.replace("~distlock:*", documented[1])
        client.execute_command(f"ACL SETUSER shop reset on >secret {own_keys}")
    cache = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": f"redis://shop:secret@{HOST}:{redis_server.port}/1",
    }
    settings.CACHES = {name: cache | {"KEY_PREFIX": name} for name in ("shop", "other")}
    path = "django_distlock.backends.redis.RedisBackend"
    settings.DISTLOCK = {
        name: {"BACKEND": path, "OPTIONS": {"cache": name}} for name in settings.CACHES
    }
    lease = acquire("shop")
    assert lease.release()
    with pytest.raises(LockBackendUnavailable, match=r"(?i)no permissions"):
        acquire("other")
    for store in lock_backends.all():
        store.close()
    with connect(redis_server) as client:
        client.acl_deluser("shop")
        client.acl_log_reset()
