"""Databases with an engine that isn't Django's own, or with settings that can't be copied."""

import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from unittest import mock

import pytest
from django.db import connections, transaction

from django_distlock import LockError, LockLost, acquire_lock, distributed_lock
from tests.app.models import Counter
from tests.support.databases import committed, using_engine
from tests.support.holders import acquire, take_away

pytestmark = [committed, pytest.mark.needs("postgresql")]

ALIAS = "postgresql"
Engine = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def engine() -> Engine:
    """Return a function that makes this thread's and the locks' connections use the engine."""
    return partial(using_engine, ALIAS, "tests.app.engines.pooled")


def test_commit_is_guarded_though_the_engine_has_no_isolation_level(engine: Engine) -> None:
    """It has none of the attributes that Django's sets when it connects."""
    with engine():
        with distributed_lock("1234collectPayment", backend=ALIAS), transaction.atomic(using=ALIAS):
            Counter.objects.using(ALIAS).create()
        assert not hasattr(connections[ALIAS], "isolation_level")
        with (
            pytest.raises(LockLost),
            distributed_lock("1234collectPayment", backend=ALIAS) as lease,
        ):
            with transaction.atomic(using=ALIAS):
                Counter.objects.using(ALIAS).create()
                take_away(lease)
        assert Counter.objects.using(ALIAS).count() == 1


def test_transaction_with_a_snapshot_is_recognised_in_any_engine(engine: Engine) -> None:
    """The isolation level is asked of the database itself."""
    with engine(options="-c default_transaction_isolation=serializable"):
        with (
            distributed_lock("1234collectPayment", backend=ALIAS) as lease,
            transaction.atomic(using=ALIAS),
        ):
            Counter.objects.using(ALIAS).create()
            lease.renew()  # then no such transaction locks its row
        assert Counter.objects.using(ALIAS).count() == 1
        with transaction.atomic(using=ALIAS):
            Counter.objects.using(ALIAS).count()
            with pytest.raises(LockError, match="began before"):
                acquire_lock("report", backend=ALIAS)


def test_settings_need_not_be_copyable(engine: Engine) -> None:
    """An SSLContext in OPTIONS isn't, for example."""
    with engine(ssl_context=ssl.create_default_context()):
        assert acquire(ALIAS).release()


@pytest.mark.needs("mariadb")
def test_isolation_level_is_queried_where_the_engine_has_none() -> None:
    """This engine makes its connection parameters by itself."""
    connection = connections["mariadb"]
    with transaction.atomic(using="mariadb"):
        with mock.patch.dict(vars(connection)):
            del connection.isolation_level  # type: ignore[attr-defined]
            assert acquire("mariadb").release()
