"""Databases and connections that can't hold every character."""

from typing import Any
from unittest import mock

import pytest
from django.db import connections

from django_distlock import acquire_lock, lock_backends
from django_distlock.backends.database import connections as own
from django_distlock.models import Lock
from django_distlock.records import LockQuery
from django_distlock.semaphores.validation import InvalidSemaphore
from tests.support.concurrency import elsewhere
from tests.support.databases import another_database, committed, on_each_database
from tests.support.holders import acquire

pytestmark = [committed, pytest.mark.once]

CYRILLIC = "\u043e\u0442\u0447\u0451\u0442"
EMOJI = "\U0001f512"


@pytest.mark.needs("mariadb")
@pytest.mark.parametrize("charset", ["latin1", "utf8mb3", "utf8mb4"])
@pytest.mark.parametrize("alias", ["mariadb", "mysql"])
def test_lease_is_renewed_with_any_charset_of_connections(alias: str, charset: str) -> None:
    """The locks' own connections set their own charset."""
    entry = connections.settings["mariadb"]
    own.close_own_connections()
    with mock.patch.dict(entry, OPTIONS=entry["OPTIONS"] | {"charset": charset}):
        for semaphore in (CYRILLIC, EMOJI):
            lease = acquire(alias, semaphore, label=EMOJI, renew=False)
            lease.renew()
            assert acquire_lock(semaphore, backend=alias) is None
            assert lease.release()
        own.close_own_connections()


@on_each_database
def test_label_is_kept_where_the_table_can_have_it(alias: str) -> None:
    """Whatever its script."""
    assert acquire(alias, label=f"{CYRILLIC} {EMOJI}")
    assert Lock.objects.using(alias).get().holder.startswith(f"{CYRILLIC} {EMOJI} (")


@pytest.mark.needs("mariadb")
@pytest.mark.parametrize("charset", ["latin1", "utf8mb3"])
@pytest.mark.parametrize("alias", ["mariadb", "mysql"])
def test_label_is_escaped_where_the_table_cannot_have_it(alias: str, charset: str) -> None:
    """A label is for people, so it is no reason to refuse the lock."""
    with connections["mariadb"].cursor() as cursor:
        alter = "ALTER TABLE distlock_lock MODIFY holder longtext CHARACTER SET"
        cursor.execute(f"{alter} {charset} NOT NULL")
        try:
            assert acquire(alias, label=f"Zo\xeb {EMOJI}")
            holder = Lock.objects.using("mariadb").get().holder
        finally:
            cursor.execute(f"{alter} utf8mb4 NOT NULL")
    assert holder.startswith(r"Zo\xeb \U0001f512 (")


IN_LATIN1 = "TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"


@pytest.mark.needs("postgresql")
def test_label_is_escaped_in_a_database_of_another_encoding() -> None:
    """In the table of waiters as well."""
    with another_database("postgresql", IN_LATIN1):
        lease = acquire("postgresql", label=f"Zo\xeb {EMOJI}")
        assert elsewhere(
            lambda: (
                acquire_lock("1234collectPayment", backend="postgresql", label=EMOJI, timeout=0.1)
                is None
            )
        )
        with pytest.raises(InvalidSemaphore, match="encoding of the database"):
            acquire_lock(CYRILLIC, backend="postgresql")
        store: Any = lock_backends["postgresql"]
        assert store.find(CYRILLIC) is None
        assert list(store.held(CYRILLIC)) == []
        assert store.waiters(CYRILLIC) == []
        with mock.patch.object(type(store), "window", 0):
            assert store.page(LockQuery(search=CYRILLIC)).locks == []
        holder = Lock.objects.using("postgresql").get().holder
        assert lease.release()
    assert holder.startswith(r"Zo\xeb \U0001f512 (")
