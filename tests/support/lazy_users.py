"""A user that is loaded by a query, like request.user."""

from __future__ import annotations

import asyncio

from django.core.exceptions import SynchronousOnlyOperation


class LazyUser:
    """A user like request.user: its key needs a query."""

    def __init__(self, customer: str) -> None:
        self._customer = customer

    @property
    def pk(self) -> str:
        """Return the key; refuse to in an event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._customer
        raise SynchronousOnlyOperation
