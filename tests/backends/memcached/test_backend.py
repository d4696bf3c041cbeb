"""Locks in Memcached: keys and values, exclusion, and the lack of tokens."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import transaction

from django_distlock import LockLost, acquire_lock, distributed_lock
from tests.app.models import Customer, Invoice
from tests.support.concurrency import elsewhere, run
from tests.support.databases import committed
from tests.support.holders import acquire
from tests.support.memcached_stores import ask, configured, key_of, on_memcached
from tests.support.processes import Workers

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = on_memcached

# Keys and values


def test_semaphore_is_hashed(alias: str) -> None:
    """Peer defect 24: a name over the limit of 250 bytes isn't cut."""
    longest = "\U0001f512" * 254
    for last in "ab":
        assert acquire(alias, longest + last)
        assert ask(alias, f"mg {key_of(longest + last)} v")[0].startswith("VA 32")
    assert acquire_lock(longest + "a", backend=alias) is None


def test_stored_value_is_the_owner(alias: str) -> None:
    """As bytes: nothing is pickled, whatever the cache does."""
    lease = acquire(alias)
    assert ask(alias, f"mg {key_of()} v f")[:2] == ["VA 32 f0", str.__str__(lease.owner)]
    assert lease.release()


def test_nothing_is_unpickled(alias: str) -> None:
    """Write access to the server must not allow running code here."""
    trap = pickle.dumps(Trap(), 0).decode()
    assert ask(alias, f"set {key_of()} 1 0 {len(trap)}\r\n{trap}") == ["STORED"]
    with mock.patch.object(Trap, "sprung") as sprung:
        assert acquire_lock("1234collectPayment", backend=alias) is None
        sprung.assert_not_called()
        pickle.loads(trap.encode())
        sprung.assert_called_once()


class Trap:
    """An object whose unpickling runs code."""

    def __reduce__(self) -> Any:
        return spring, ()

    @staticmethod
    def sprung() -> None:
        """Record the call."""


def spring() -> None:
    Trap.sprung()


def test_key_prefix_counts(alias: str) -> None:
    """Two sites on one server have separate locks."""
    assert acquire(alias)
    with configured(alias, {"KEY_PREFIX": "site"}):
        assert acquire(alias)
        assert ask(alias, f"mg {key_of(prefix='site:')} v")[0] == "VA 32"
        assert acquire_lock("1234collectPayment", backend=alias) is None


def test_version_and_key_function_do_not_count(alias: str) -> None:
    """A new version at a deploy would split each lock in two."""
    assert acquire(alias)
    with configured(alias, {"VERSION": 2, "KEY_FUNCTION": lambda *parts: repr(parts)}):
        assert acquire_lock("1234collectPayment", backend=alias) is None


# Exclusion


@pytest.mark.once
def test_processes_that_race_exclude_each_other(alias: str, tmp_path: Path) -> None:
    """Each of 100 fresh keys is granted to one of 4, and they lose no increment of a number.

    They read the number from a file and write it back, one at a time.
    """
    file = tmp_path / "counter"
    file.write_text("0")
    with Workers(4, "grab_and_count", alias, "100", str(file), "20") as workers:
        granted = [name for names in workers.results() for name in names]
    assert sorted(granted) == sorted(f"fresh {number}" for number in range(100))
    assert file.read_text() == "80"


@pytest.mark.once
def test_threads_that_hold_in_turn_never_overlap(alias: str) -> None:
    """Real threads, each with its own connections."""
    inside: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            with distributed_lock("1234collectPayment", timeout=60, backend=alias):
                inside.append(number)
                assert inside == [number]
                inside.remove(number)

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(work, number) for number in range(8)]:
            done.result()


def test_async_calls(alias: str) -> None:
    """They are made in threads of the store's own."""

    async def use() -> None:
        async with distributed_lock("1234collectPayment", backend=alias) as lease:
            assert lease.held
            await lease.arenew()

    run(use())


# What has no token


@committed
def test_fenced_write_is_refused(alias: str) -> None:
    """The error says that the store gives no tokens."""
    invoice = Invoice.objects.create(customer=Customer.objects.create(pk=1234))
    lease = acquire(alias, "1234collectPayment")
    assert lease.token is None
    for write in (
        lambda: invoice.save(lease=lease),
        lambda: invoice.delete(lease=lease),
        lambda: Invoice.objects.fenced(lease).update(amount=1),
    ):
        with pytest.raises(ValueError, match=f"has no token: its store '{alias}' doesn't"):
            write()
    assert lease.release()


@committed
def test_sequential_blocks_in_one_transaction_have_one_lease(alias: str) -> None:
    """Nobody else had the lock in between."""
    with transaction.atomic():
        for _ in range(2):
            with distributed_lock("1234collectPayment", backend=alias) as lease:
                assert lease.held
            assert not elsewhere(lambda: acquire_lock("1234collectPayment", backend=alias))
    assert acquire(alias).release()


@committed
def test_loss_between_two_blocks_is_noticed_without_a_token(alias: str) -> None:
    """Somebody else may have held the lock, and released it."""
    with pytest.raises(LockLost), transaction.atomic():
        with distributed_lock("1234collectPayment", backend=alias):
            pass
        assert ask(alias, "flush_all") == ["OK"]
        assert elsewhere(lambda: acquire(alias).release())
        with distributed_lock("1234collectPayment", backend=alias):
            pytest.fail("it was taken back")
    assert acquire(alias).release()
