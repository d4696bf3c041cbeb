"""A user that takes a query to be known, as request.user is."""

from __future__ import annotations

import asyncio

from django.core.exceptions import SynchronousOnlyOperation


class LazyUser:
    """As request.user: it takes a query to know who it is."""

    def __init__(self, customer: str) -> None:
        self._customer = customer

    @property
    def pk(self) -> str:
        """Refuse to be asked in an event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._customer
        raise SynchronousOnlyOperation
