"""Who waits in this process, and what a lock that is collected in between does to that."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from django_distlock.queues import Queue, Queues

if TYPE_CHECKING:
    import pytest

    from django_distlock.queues import Waiter


class Waiting:
    """A waiter that counts how often it is woken."""

    loop = None

    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> bool:
        """Count."""
        self.woken += 1
        return True


def test_release_in_a_finalizer_waits_for_no_lock_of_its_own_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The garbage collector may run it in the midst of another change of the queues."""
    queues, first, next_one = Queues(), Waiting(), Waiting()
    add, remove = Queue.add, Queue.remove

    def add_and_collect(self: Queue, waiter: Waiter) -> None:
        add(self, waiter)
        queues.tell_free("default", "a")

    def remove_and_collect(self: Queue, waiter: Waiter) -> None:
        queues.tell_free("default", "a")
        remove(self, waiter)

    def wait() -> None:
        with queues.waiting("default", "a", first), queues.waiting("default", "a", next_one):
            queues.tell_free("default", "a")

    monkeypatch.setattr(Queue, "add", add_and_collect)
    monkeypatch.setattr(Queue, "remove", remove_and_collect)
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert (first.woken, next_one.woken) == (5, 0)
    assert len(queues) == 0
