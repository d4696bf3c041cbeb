"""PostgreSQL, and what can happen to it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from tests.faults.environment import TESTED, Environment, Fault
from tests.support.postgresql import postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random


class PostgreSQL(Environment):
    store = "postgresql"

    def __enter__(self) -> Self:
        self.server = postgresql().begin()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.remove()

    def settings(self) -> dict[str, Any]:
        return {
            "DATABASES": {"default": self.server.settings},
            "DISTLOCK": {
                TESTED: {
                    "BACKEND": "django_distlock.backends.database.DatabaseBackend",
                    "OPTIONS": {"using": "default"},
                }
            },
        }

    @property
    def faults(self) -> dict[str, Fault]:
        return {"server_killed": self.killed, "server_paused": self.paused}

    @contextmanager
    def killed(self, random: Random) -> Iterator[None]:
        """Kill all of the server's processes; it keeps what it has told the system to write."""
        self.server.kill()
        yield
        self.server.start()

    @contextmanager
    def paused(self, random: Random) -> Iterator[None]:
        """Stop all of the server's processes: it answers nothing."""
        with self.server.paused():
            yield
