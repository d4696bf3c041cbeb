"""What stores outside the database have in common."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tests.faults import clocks
from tests.faults.environment import ClockedEnvironment, sqlite_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from tests.support.servers import Server


class OutsideStore(ClockedEnvironment):
    """A store outside the database, with servers that all have one wall clock, which can be moved.

    What the locks protect is a file of SQLite: a fence protects it, but no commit is guarded.
    """

    registers: ClassVar[tuple[str, ...]] = ("fenced",)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.directory = Path(stack.enter_context(TemporaryDirectory(prefix="distlock-run-")))
            self.directory.chmod(0o755)  # the servers' accounts read the clock
            self.clock = clocks.MovedClock(self.directory / "clock")
            self.start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @abstractmethod
    def start(self, stack: ExitStack) -> None:
        """Start the servers, which the stack removes."""

    @abstractmethod
    def backends(self) -> dict[str, Any]:
        """Return DISTLOCK, and other settings of the workers but DATABASES."""

    def settings(self) -> dict[str, Any]:
        registers = sqlite_settings(self.directory / "registers.sqlite3")
        return {"DATABASES": {"default": registers}, **self.backends()}


@contextmanager
def killed(server: Server) -> Iterator[None]:
    """Kill a server, and start it again at the end."""
    server.kill()
    try:
        yield
    finally:
        server.start()


class OneServer(OutsideStore):
    """A store with one server."""

    server: Server

    @contextmanager
    def server_killed(self, random: Random) -> Iterator[None]:
        """Kill the server, and start it again."""
        with killed(self.server):
            yield

    @contextmanager
    def server_paused(self, random: Random) -> Iterator[None]:
        """Stop the server's process: it answers nothing."""
        with self.server.paused():
            yield
