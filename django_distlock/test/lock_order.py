"""`consistent_lock_order`: two locks are taken in one order everywhere, else they may deadlock."""

import os
import threading
from typing import Any, Final
from weakref import WeakKeyDictionary

from django_distlock.concurrency.background import background
from django_distlock.leases.registry import LeaseRegistry, current_registry
from django_distlock.leases.state import LeaseState, Status
from django_distlock.locks.acquisition import Acquisition, before_acquisitions
from django_distlock.signals import lock_acquired, lock_lost, lock_released

from .order_graph import OrderGraph
from .source_lines import AcquisitionLines, SourceLine
from .taken_orders import LockClass, Pair, TakenOrder, describe_cycle
from .watching import Watcher


class LockOrder:
    """The orders in which the tests of this process took locks, and contradictions among them.

    An order counts if a thread or task held the first lock itself when it asked for the second.
    """

    def __init__(self) -> None:
        self._graph: OrderGraph[LockClass, TakenOrder] = OrderGraph()
        self._lines = AcquisitionLines()
        self._acquired_at: WeakKeyDictionary[LeaseState, SourceLine | None] = WeakKeyDictionary()
        self._of_held: dict[str, dict[Pair, TakenOrder]] = {}
        """Orders that begin with a lock that is still held, by the owner of its lease."""
        self._of_ended: dict[Pair, TakenOrder] = {}
        self._tests: list[str] = []

    def start(self, test: str) -> None:
        """Watch from now on, for this test."""
        if not self._tests:
            self._lines.start()
            before_acquisitions.append(self._asked)
            lock_acquired.record(self._acquired)
            lock_released.record(self._released)
            lock_lost.record(self._lost)
        self._tests.append(test)

    def finish(self) -> str:
        """Stop watching, and return a report of the contradictions that are new."""
        self._tests.pop()
        if not self._tests:
            self._lines.stop()
            before_acquisitions.remove(self._asked)
            lock_acquired.stop_recording(self._acquired)
            lock_released.stop_recording(self._released)
            lock_lost.stop_recording(self._lost)
        while self._of_held:
            self._end(self._of_held.popitem()[1])
        orders, self._of_ended = self._of_ended, {}
        cycles = [self._add(order) for order in orders.values()]
        return "\n\n".join(describe_cycle(cycle) for cycle in cycles if cycle)

    def _add(self, order: TakenOrder) -> list[TakenOrder]:
        known = self._graph.find(*order.pair)
        if known is None:
            return self._graph.add(*order.pair, order)
        if order.adds_to(known):
            self._graph.replace(*order.pair, order)
        return []

    def _asked(self, acquisition: Acquisition) -> None:
        """Record what this thread or task holds while it asks for one more."""
        registry = current_registry()
        line = self._lines.latest(registry)
        held = held_by(registry)
        name = acquisition.backend, acquisition.semaphore
        if line is None or any((lease.backend, lease.semaphore) == name for lease in held):
            return  # it has this lock already
        timeout = acquisition.deadline - acquisition.began if acquisition.waits else 0.0
        test = next(reversed(self._tests), "")  # another thread may end it just now
        outside = registry.scopes[-1].earlier if registry.scopes else {}
        for lease in held:
            if lease.owner in outside:
                continue  # around the request or task: in production, another process has that
            line_of_held = self._acquired_at.get(lease)
            order = TakenOrder.of(lease, acquisition, line_of_held, line, timeout, test)
            orders = self._of_held.setdefault(lease.owner, {})
            if order.adds_to(orders.get(order.pair) or self._graph.find(*order.pair)):
                orders[order.pair] = order

    def _acquired(self, lease: LeaseState, **_: Any) -> None:
        self._acquired_at[lease] = self._lines.of(lease)

    def _released(self, lease: LeaseState, **_: Any) -> None:
        orders = self._of_held.pop(lease.owner, {})
        if not is_released_elsewhere(lease):
            self._end(orders)

    def _lost(self, lease: LeaseState, **_: Any) -> None:
        self._end(self._of_held.pop(lease.owner, {}))

    def _end(self, orders: dict[Pair, TakenOrder]) -> None:
        for pair, order in orders.items():
            if order.adds_to(self._of_ended.get(pair)):
                self._of_ended[pair] = order


def held_by(registry: LeaseRegistry) -> list[LeaseState]:
    """Return the leases of a thread or task that its store has, also if a release is deferred."""
    deferred = [each.lease for each in registry.deferred_releases if not each.ended]
    leases = dict.fromkeys(registry.leases() + deferred)
    return [
        lease
        for lease in leases
        if lease.remaining and lease.status not in (Status.RELEASED, Status.LOST)
    ]


def is_released_elsewhere(lease: LeaseState) -> bool:
    """Tell whether another thread or task releases it: the lease was passed on.

    The one that acquired it did not hold it itself then, when it asked for other locks.
    """
    registry = lease.registry()
    if registry is None or threading.current_thread() is background(lease.backend).thread:
        return False
    return current_registry() is not registry


lock_order: Final = LockOrder()
"""The orders of all tests of this process."""


class consistent_lock_order(Watcher):  # noqa: N801 - used like a function
    """Fail a block or a decorated test that takes two locks in the opposite order of another one.

    Such code may deadlock. Orders are compared among all watched tests of this process. A circle of
    three or more locks counts, too. Each is reported once, by the test that closes it.
    """

    def enable(self) -> None:
        current = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
        lock_order.start(current or self.test or str(SourceLine.of_call()))

    def finish(self) -> str:
        return lock_order.finish()
