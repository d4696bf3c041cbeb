"""PostgreSQL: a waiter that leaves keeps the lock that it is offered, though it is of no use to it.

Offers last for a minute here, so that the mistake is seen: usually they end by themselves.
"""

from __future__ import annotations

from typing import Any

from django_distlock.backends.database.places import QueuedPlace, places
from tests.support.postgresql_waiters import let_offers_last


def apply() -> None:
    """Make the mistake."""
    let_offers_last()

    def mistaken(self: QueuedPlace, run: Any, *, granted: bool) -> None:
        places.pop(self.owner, None)
        self._listener.remove(self)
        if not granted:
            run(lambda sql: sql.leave(self.id))

    setattr(QueuedPlace, "leave", mistaken)  # noqa: B010 - a method, to type checkers
