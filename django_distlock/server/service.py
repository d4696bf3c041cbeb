"""A lock server's state: its table, and the clients that use it."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import fields
from ssl import SSLContext
from typing import Final

from .admission import Admission
from .limits import Limits
from .listings import Listings
from .page_search import PageSearch
from .processes import Processes, Recipient
from .protocol import VERSION, Message
from .table import LockTable

STOPPING: Final = ("closing", "The server stops; it may be back soon.")
"""The last message to all clients: code and text."""


class Service:
    """The state that all connections of a server share, in one thread with one event loop."""

    def __init__(
        self,
        table: LockTable,
        secret: bytes,
        limits: Limits,
        tls: SSLContext | None = None,
        save_pauses: Callable[[], object] = lambda: None,
    ) -> None:
        self.table = table
        self.secret = secret
        self.limits = limits
        self.tls = tls
        self.save_pauses = save_pauses
        """To be called when the table's pauses have changed, before that is answered."""
        self.admission = Admission(limits.max_connections)
        self.processes = Processes()
        self.listings = Listings[list[str]]()
        self.searches = Listings[PageSearch]()
        self.stopping = False
        self._started = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def run_due(self) -> None:
        """Free what has expired, and schedule the next such check."""
        due = asyncio.get_running_loop().time() + self.table.run_due()
        if due < self._timer_at:
            self._set_timer(due)

    def _set_timer(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = asyncio.get_running_loop().call_at(due, self._run_timer)

    def _run_timer(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self.run_due()

    def disconnect(self, name: str, connection: Recipient) -> None:
        """End the session of the process that listened on this connection.

        Not when the server stops: the table is saved with the leases of all processes, which
        connect to the next server.
        """
        if self.stopping:
            return
        session = self.processes.remove(name, connection)
        if session is not None:
            self.table.end_session(session)
            self.run_due()

    def status(self) -> Message:
        """Return what an operator wants to know."""
        return {
            "version": VERSION,
            "up": round(time.monotonic() - self._started, 3),
            "grace": round(self.table.grace, 3),
            "locks": len(self.table),
            "waiters": len(self.table.waiters),
            "pauses": len(self.table.pauses_in_force()),
            "connections": len(self.admission.open),
            "processes": len(self.processes),
            "limits": {each.name: getattr(self.limits, each.name) for each in fields(self.limits)},
        }

    def stop(self) -> None:
        """Answer no further request, and close all connections."""
        self.stopping = True
        if self._timer is not None:
            self._timer.cancel()
        self.admission.end_all(*STOPPING)
