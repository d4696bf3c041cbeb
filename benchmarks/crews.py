"""Processes that work for a benchmark: started once, given calls, and stopped in any case."""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from benchmarks import stores

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess
    from multiprocessing.synchronize import Barrier, Semaphore

PATIENCE = 100  # seconds past the time that work should take


class Shared(NamedTuple):
    """What the processes of a crew share."""

    number: int
    """Which of them this is, from 1."""
    ready: Barrier
    """Lets all go on once all have come."""
    inside: Any
    """The number of the worker that is inside the lock; 0 if none is."""
    begun: Semaphore
    """Released by a worker that is about to do what the first process waits for."""


class Crew:
    """So many processes, set up like this one; `with` stops them at the end of the block."""

    def __init__(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        # Kept here too: they are gone with this process's last reference.
        self.ready, self.begun = context.Barrier(number), context.Semaphore(0)
        inside = context.RawValue("i", 0)
        how = (stores.configured(), stores.has_hiredis())
        self.pipes: list[Connection] = []
        self.processes: list[SpawnProcess] = []
        for one in range(1, number + 1):
            pipe, its_end = context.Pipe()
            shared = Shared(one, self.ready, inside, self.begun)
            process = context.Process(target=serve, args=(its_end, shared, *how), daemon=True)
            self.pipes.append(pipe)
            self.processes.append(process)

    def __enter__(self) -> Self:
        try:
            for process in self.processes:
                process.start()
            self.results(0)  # the first answer of each: it is ready
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the processes, whatever they do."""
        for process in self.processes:
            if process.pid is not None:
                process.kill()
                process.join()

    def begin(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Make each call `work` with what they share, and the arguments."""
        for pipe in self.pipes:
            pipe.send((work, arguments))

    def await_begun(self, number: int) -> None:
        """Wait until so many have begun; raise the error of one that fails before."""
        end = time.monotonic() + PATIENCE
        for _ in range(number):
            while not self.begun.acquire(timeout=0.1):
                for pipe, process in zip(self.pipes, self.processes, strict=True):
                    if pipe.poll():
                        self._result(pipe, process, 0)
                if time.monotonic() > end:
                    raise TimeoutError("a process has not begun")

    def results(self, seconds: float) -> list[Any]:
        """Return what each call returned; they should take so many seconds."""
        workers = zip(self.pipes, self.processes, strict=True)
        return [self._result(pipe, process, seconds + PATIENCE) for pipe, process in workers]

    def run(self, seconds: float, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Make each call `work`, and return the results."""
        self.begin(work, *arguments)
        return self.results(seconds)

    def _result(self, pipe: Connection, process: SpawnProcess, timeout: float) -> Any:
        if pipe not in wait([pipe, process.sentinel], timeout):
            raise TimeoutError(f"a process has ended, or not answered for {timeout:.0f} s")
        result, error = pipe.recv()
        if error:
            raise RuntimeError(f"a process failed:\n{error}")
        return result


def serve(pipe: Connection, shared: Shared, configured: dict[str, Any], hiredis: bool) -> None:
    """Run the calls from the pipe, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops this process
    stores.set_up(configured, hiredis=hiredis)
    pipe.send((None, None))
    while True:
        try:
            work, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(shared, work, arguments))


def attempt(
    shared: Shared, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[Any, str | None]:
    """Return what the call returns, or the traceback of its error."""
    try:
        return work(shared, *arguments), None
    except Exception:  # noqa: BLE001 - whatever it is, the first process raises it
        shared.ready.abort()  # the others needn't wait for this one
        return None, traceback.format_exc()
