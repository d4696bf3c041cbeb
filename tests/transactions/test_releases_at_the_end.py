"""A release waits for the last open transaction, but not for closed connections."""

import gc
import threading
from contextlib import suppress

import pytest
from django.db import DatabaseError, connections, transaction

from django_distlock import (
    distributed_lock,
    release_lock,
)
from tests.app.models import Counter
from tests.support.databases import committed, kill_session, on_each_server
from tests.support.holders import acquire, free_for_others

pytestmark = committed


# When the connection ends


@on_each_server
def test_connection_closed_in_a_transaction_releases(alias: str) -> None:
    """The transaction is rolled back."""
    with suppress(DatabaseError), transaction.atomic(using=alias):
        acquire(alias).release()
        connections[alias].close()
        assert free_for_others(alias, timeout=30)


@on_each_server
def test_release_after_the_connection_was_closed_waits_for_nothing(alias: str) -> None:
    """The server has rolled the transaction back."""
    with suppress(DatabaseError), transaction.atomic(using=alias):
        lease = acquire(alias)
        connections[alias].close()
        lease.release()
        assert free_for_others(alias)


@pytest.mark.once
@on_each_server
def test_connection_killed_in_a_transaction_releases(alias: str) -> None:
    """It may be killed by the server, an operator or the network."""
    with pytest.raises(DatabaseError), transaction.atomic(using=alias):
        acquire(alias).release()
        kill_session(alias)
        Counter.objects.using(alias).create()
    assert free_for_others(alias, timeout=30)


# PostgreSQL's driver warns of a connection that was never closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@on_each_server
def test_thread_that_ends_in_a_transaction_releases(alias: str) -> None:
    """Only the garbage collector closes its connection."""

    def work() -> None:
        transaction.atomic(using=alias).__enter__()
        acquire(alias).release()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    gc.collect()
    assert free_for_others(alias, timeout=30)


# At the end of the last transaction of several


@on_each_server
@pytest.mark.parametrize("failing", [None, "outer", "inner"])
@pytest.mark.parametrize("inside", ["outer", "both"])
def test_release_waits_for_the_transactions_of_all_databases(
    alias: str, failing: str | None, inside: str
) -> None:
    """Also for databases without locks; the last transaction counts."""
    with suppress(ZeroDivisionError), transaction.atomic():
        with suppress(ZeroDivisionError), transaction.atomic(using=alias):
            acquire(alias)
            if inside == "both":
                release_lock("1234collectPayment", backend=alias)
            if failing == "inner":
                raise ZeroDivisionError
        if inside == "outer":
            release_lock("1234collectPayment", backend=alias)
        assert not free_for_others(alias)
        if failing == "outer":
            raise ZeroDivisionError
    assert free_for_others(alias, timeout=30)


@pytest.mark.parametrize("failing", [False, True])
def test_release_waits_for_the_data_in_another_file(failing: bool) -> None:
    """On SQLite, with a file for the locks, a grant is visible at once, as on a server."""
    with suppress(ZeroDivisionError), transaction.atomic():
        Counter.objects.create()
        with distributed_lock("1234collectPayment", backend="locks"):
            assert not free_for_others("locks")
        assert not free_for_others("locks")
        if failing:
            raise ZeroDivisionError
    assert free_for_others("locks", timeout=30)


def test_release_waits_for_the_data_beside_a_transaction_of_the_locks() -> None:
    """Of two transactions, the inner one's commit must not be seen before the outer one's."""
    with transaction.atomic():
        Counter.objects.create()
        with transaction.atomic(using="locks"):
            acquire("locks").release()
        assert not free_for_others("locks")
    assert free_for_others("locks")
