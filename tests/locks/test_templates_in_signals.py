"""Signals carry the template of a decorated function: it groups locks, and names no customer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from django_distlock import acquire_lock, distributed_lock, release_lock, skip
from tests.support.concurrency import elsewhere
from tests.support.holders import acquire, take_away

if TYPE_CHECKING:
    from tests.support.signals import SentSignals

TEMPLATE = "<customer_id>collectPayment"


def for_customer(customer_id: int) -> str:
    """Return the semaphore."""
    return f"{customer_id}collectPayment"


def templates(signals_sent: SentSignals) -> list[tuple[str, str]]:
    """Return the names of the signals, and the template that each had."""
    return [
        (name, arguments["template"])
        for name, arguments in signals_sent.all
        if name != "force_released"
    ]


def test_template_as_it_is_written(signals_sent: SentSignals) -> None:
    """In each signal about a decorated call."""

    @distributed_lock(TEMPLATE, backend="memory", on_conflict=skip)
    def collect(customer_id: int) -> None:
        elsewhere(lambda: collect(customer_id))

    collect(1234)
    names = ["acquired", "contended", "released"]
    assert templates(signals_sent) == [(name, TEMPLATE) for name in names]


def test_template_of_a_lost_lock(signals_sent: SentSignals) -> None:
    """Lost, rather than released."""

    @distributed_lock(TEMPLATE, backend="memory")
    def collect(customer_id: int) -> None:
        [(_, acquired)] = signals_sent.all
        take_away(acquired["lease"])
        acquired["lease"].renew()

    with pytest.raises(Exception, match="was lost"):
        collect(1234)
    assert templates(signals_sent)[-1] == ("lost", TEMPLATE)


def test_callable_is_named(signals_sent: SentSignals) -> None:
    """It stands for the template."""

    @distributed_lock(for_customer, backend="memory")
    def collect(customer_id: int) -> None:
        pass

    collect(1234)
    assert {template for _, template in templates(signals_sent)} == {f"{__name__}.for_customer()"}


def test_no_template_elsewhere(signals_sent: SentSignals) -> None:
    """A semaphore may have been made of a customer's id; nobody knows."""
    acquire("memory")
    release_lock("1234collectPayment", backend="memory")
    with distributed_lock("1234collectPayment", backend="memory"):
        assert acquire_lock("1234collectPayment", backend="memory") is None
    assert {template for _, template in templates(signals_sent)} == {""}
