"""A request to join a queue that arrives after its waiter has left, as after a partition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django_distlock.backends.server.listening import Listener
from django_distlock.backends.server.places import QueuedPlace

if TYPE_CHECKING:
    from django_distlock.backends.server.connections import LockServer, ServerConnection


class AskedServer:
    """Notes what it is asked."""

    timeout = 2.0

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def ask(self, request: dict[str, Any], deadline: float) -> dict[str, Any]:
        """Note the request."""
        self.asked.append(request)
        return {}


class OfferingConnection:
    """Offers a lock to the waiter with this number."""

    def __init__(self, number: int) -> None:
        self._number = number

    def has_message(self, seconds: float) -> bool:
        """Return True: the offer is there."""
        return True

    def receive(self) -> dict[str, Any]:
        """Return the offer."""
        return {"offer": self._number}


def test_waiter_that_has_left_leaves_again_when_it_is_offered_the_lock() -> None:
    """Otherwise it would be offered the lock each time, for a second, and others wait for that."""
    server = AskedServer()
    listener = Listener(cast("LockServer", server))
    names = {"semaphore": "1234collectPayment", "owner": "owner"}
    place = QueuedPlace(listener, 4, lambda: True, {"do": "join", **names})
    listener.remove(place)
    for number in (3, 4):
        listener.receive(cast("ServerConnection", OfferingConnection(number)), 0)
    assert server.asked == [{"do": "leave", **names}]
