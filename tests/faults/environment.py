"""What the runner needs to know of a store: its servers, its faults, how workers reach it."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tests.faults.clocks import REST, is_installed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.clocks import MovedClock
    from tests.support.servers import Server

TESTED = "tested"
"""The alias in DISTLOCK of the store under test."""
PROXIED = "proxied"
"""Likewise, but through a proxy: half of the workers use it, where there is one."""
ISOLATED = "isolated"
"""Likewise, for workers whose transactions have snapshots: they acquire before they begin one."""

Fault = Callable[[Random], AbstractContextManager[object]]
"""Begins a fault; the runner waits, and its end undoes it. The random numbers choose a target."""


class Environment(AbstractContextManager["Environment"]):
    """A store's servers, between __enter__() and __exit__()."""

    store: ClassVar[str]
    """Its name, for --store and for promises.py."""
    needs: ClassVar[str] = ""
    """What has to be installed for it, as tests/support/plugin.py calls it."""
    ttls: ClassVar[tuple[float, ...]] = (1.0, 2.0)
    registers: ClassVar[tuple[str, ...]] = ("fenced", "guarded")
    """The kinds of registers that the locks protect: the second needs a guarded commit."""

    clients_have_clocks: ClassVar[bool] = True
    """The workers' wall clocks are not the store's, and can be moved."""

    probes_stale: ClassVar[bool] = True
    """Leases that are over are released and renewed once more: the store must refuse that.

    After a failover to a server that has not received a release, the lock is its owner's again.
    """

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the workers' DATABASES, CACHES and DISTLOCK. Registers are in `default`."""

    def variables(self) -> dict[str, str]:
        """Return more environment variables for the workers."""
        return {}

    def rest(self) -> None:
        """End all leases, before a run: that of a former one may have left some."""
        time.sleep(max(self.ttls))

    @property
    @abstractmethod
    def faults(self) -> dict[str, Fault]:
        """Return the faults that this store can have, by the names that promises.py has."""


class ClockedEnvironment(Environment):
    """A store whose servers, or processes, have one wall clock; a run moves it where it can."""

    clock: MovedClock

    def governed(self, server: Server) -> Server:
        """Return the server, which has not been started, with the clock that is moved."""
        return self.clock.govern(server) if is_installed() else server

    def let_clock_rest(self) -> None:
        """End all leases of a store that ends them by its wall clock. See rest()."""
        if is_installed():
            self.clock.step(REST)
        else:
            super().rest()

    @property
    def clock_faults(self) -> dict[str, Fault]:
        """Return what can happen to the clock."""
        return self.clock.faults if is_installed() else {}


def sqlite_settings(path: Path) -> dict[str, Any]:
    """Return a database of DATABASES in a file."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL;",
        },
    }
