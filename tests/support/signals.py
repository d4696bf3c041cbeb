"""Receivers that collect what is sent about locks."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django_distlock import Lease, signals
from tests.support.holders import finish_background_work, renew_now, take_away

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.dispatch import Signal


NAMES = ["acquired", "contended", "unavailable", "released", "lost", "force_released"]


def signal(name: str) -> Signal:
    """Return one of the signals."""
    found: Signal = getattr(signals, f"lock_{name}")
    return found


@contextmanager
def received(name: str, receive: Callable[..., object]) -> Iterator[None]:
    """Call this for each signal of that name in the block."""
    signal(name).connect(receive, weak=False, dispatch_uid="received")
    try:
        yield
    finally:
        signal(name).disconnect(dispatch_uid="received")


class SentSignals:
    """The signals that were sent, in order."""

    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, Any]]] = []
        self.lost = threading.Event()
        self.receivers = {name: self._receiver(name) for name in NAMES}
        for name, receiver in self.receivers.items():
            signal(name).connect(receiver)

    def _receiver(self, name: str) -> Callable[..., None]:
        def receive(**arguments: Any) -> None:
            self.all.append((name, arguments))
            if name == "lost":
                self.lost.set()

        return receive

    @property
    def names(self) -> list[str]:
        """Return the names of the signals that were sent."""
        finish_background_work()
        return [name for name, _ in self.all]

    def about(self, lease: Lease) -> list[str]:
        """Return the names of the signals about this lease."""
        finish_background_work()
        return [name for name, arguments in self.all if arguments.get("lease") is lease]

    def stop(self) -> None:
        """Receive no more."""
        for name, receiver in self.receivers.items():
            signal(name).disconnect(receiver)


def lose(lease: Lease) -> None:
    """Force-release the lease, and make the renewing thread notice."""
    take_away(lease)
    renew_now(lease)
