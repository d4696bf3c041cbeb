"""The queues of all locks, and how many waiters they may have."""

from collections import OrderedDict

from .errors import Refused
from .locks import Lock, Waiter


class Waiters:
    """All waiters of a table. Each also stands in its lock's queue and in its session."""

    def __init__(self, max_per_lock: float, max_total: float) -> None:
        self._max_per_lock = max_per_lock
        self._max_total = max_total
        self._places: set[tuple[str, str]] = set()
        """By semaphore and owner."""

    def __len__(self) -> int:
        return len(self._places)

    def add(self, lock: Lock, waiter: Waiter) -> None:
        """Add a waiter at the end, or in the place of its owner's earlier one. Refused if full."""
        if lock.queue is None:
            lock.queue = OrderedDict()
        place = lock.semaphore, waiter.owner
        earlier = lock.queue.get(waiter.owner)
        if earlier is not None:
            earlier.session.waiting.discard(place)
            waiter = waiter._replace(since=earlier.since)
        elif len(lock.queue) >= self._max_per_lock:
            raise Refused(
                f"{len(lock.queue)} wait for {lock.semaphore!r} already, as many as --max-waiters "
                "allows."
            )
        elif len(self._places) >= self._max_total:
            raise Refused(
                f"{len(self._places)} wait for locks already, as many as --max-all-waiters allows."
            )
        waiter.session.waiting.add(place)
        self._places.add(place)
        lock.queue[waiter.owner] = waiter

    def semaphores(self) -> set[str]:
        """Return the semaphores that are waited for."""
        return {semaphore for semaphore, _ in list(self._places)}

    def remove(self, lock: Lock, owner: str) -> None:
        """Remove this owner from the lock's queue, if it is in there."""
        if lock.queue and (waiter := lock.queue.pop(owner, None)):
            place = lock.semaphore, owner
            waiter.session.waiting.discard(place)
            self._places.discard(place)


def next_waiter(queue: OrderedDict[str, Waiter]) -> Waiter:
    """Return the first waiter whose session is responsive, or else the first."""
    first = next(iter(queue.values()))
    if not first.session.unresponsive:
        return first
    return next((each for each in queue.values() if not each.session.unresponsive), first)
