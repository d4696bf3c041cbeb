"""The `with` block of a distributed_lock."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from django_distlock.lease import Lease
from django_distlock.leases.block_release import (
    arelease_block,
    end_interrupted_block,
    release_block,
)
from django_distlock.leases.registry import BlockEntry, current_registry
from django_distlock.locks.acquisition import Acquisition
from django_distlock.locks.api import aacquire, acquire
from django_distlock.locks.arguments import refuse_template
from django_distlock.locks.undo import aundo, undo

if TYPE_CHECKING:
    import typing_extensions  # type checkers know it, installed or not

    CallableOrNone_co = typing_extensions.TypeVar(
        "CallableOrNone_co", bound=Callable[..., Any] | None, covariant=True, default=None
    )
else:
    CallableOrNone_co = TypeVar("CallableOrNone_co", covariant=True)


class LockBlock(Generic[CallableOrNone_co]):
    """Hold a lock during a block. Many threads and tasks may use one object at the same time.

    The class is generic in the type of `on_conflict`, which is None for a block.
    """

    semaphore: str | Callable[..., str]
    on_conflict: CallableOrNone_co
    http: bool | None
    _new_acquisition: partial[Acquisition]
    _entries: list[BlockEntry]
    """The blocks that threads and tasks have entered with this object, and not left yet."""

    def __enter__(self: "LockBlock[None]") -> Lease:
        acquisition = self._new_acquisition(self._of_block())
        entry = None
        try:
            lease = acquire(acquisition)
            if lease is None:
                raise acquisition.contention()
            entry = current_registry().enter_block(lease)
            self._entries.append(entry)
            return lease
        except BaseException:
            self._exit(entry)
            undo(acquisition)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        entry = None
        try:
            entry = current_registry().entry_to_exit(self._entries)
            self._exit(entry)
            release_block(entry.lease, failed=error is not None)
        except BaseException:
            self._end_interrupted_block(entry)
            raise
        return False

    async def __aenter__(self: "LockBlock[None]") -> Lease:
        acquisition = self._new_acquisition(self._of_block())
        entry = None
        try:
            lease = await aacquire(acquisition)
            if lease is None:
                raise acquisition.contention()
            entry = current_registry().enter_block(lease)
            self._entries.append(entry)
            return lease
        except BaseException as failure:
            self._exit(entry)
            await aundo(acquisition, failure)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        entry = None
        try:
            entry = current_registry().entry_to_exit(self._entries)
            self._exit(entry)
            await arelease_block(entry.lease, failed=error is not None)
        except BaseException:
            self._end_interrupted_block(entry)
            raise
        return False

    def _end_interrupted_block(self, entry: BlockEntry | None) -> None:
        """See end_interrupted_block(), also for an interruption before the entry was found."""
        entry = entry or current_registry().entry_to_exit(self._entries)
        self._exit(entry)
        end_interrupted_block(entry)

    def _exit(self, entry: BlockEntry | None) -> None:
        """Mark the block as left, if it was entered and is not left yet."""
        if entry is not None:
            with suppress(ValueError):
                self._entries.remove(entry)
            entry.exit()

    def _of_block(self) -> str:
        """Return the semaphore of a `with` block, which has no arguments to fill a template."""
        if not isinstance(self.semaphore, str):
            raise TypeError(
                f"{self.semaphore!r} is called with a decorated call's arguments; a `with` block "
                "has none. Give the semaphore itself."
            )
        refuse_template(self.semaphore)
        if self.on_conflict is not None:
            raise TypeError("on_conflict is for decorated calls; a `with` block raises.")
        if self.http is not None:
            raise TypeError("http is for decorated calls; a `with` block answers no request.")
        return self.semaphore
