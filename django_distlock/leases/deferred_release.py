"""Deferred release: it waits for the end of the transactions that are open when it is asked for.

Otherwise others would get the lock before they can see the work done under it.
"""

import threading
from contextlib import suppress
from enum import Enum, auto
from functools import partial

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.backends.base import joins_transaction
from django_distlock.concurrency.background import background
from django_distlock.concurrency.store_calls import ask
from django_distlock.conf import lock_backends
from django_distlock.logs import room_logger
from django_distlock.runtime import is_in_savepoint
from django_distlock.transactions import AfterTransactions

from .immediate_release import release_in_store
from .outcomes import end_lost, end_released, mark_unreleased, stop_renewal
from .state import LeaseState

logger = room_logger("leases")


class Stage(Enum):
    """What to do with the lease when its transactions have ended."""

    WAITING = auto()
    """Release it."""
    TENTATIVE = auto()
    """It was released in the only open transaction: release it again if that is rolled back."""
    GUARDING = auto()
    """Nothing: it was acquired again, or is lost. But the work under it is not committed yet."""
    DONE = auto()


class DeferredRelease:
    """The release of a lease that waits for open transactions.

    The registry of its thread or task lists it until it is done.
    """

    def __init__(
        self,
        lease: LeaseState,
        transactions: list[BaseDatabaseWrapper],
        siblings: "list[DeferredRelease]",
        *,
        failed: bool,
    ) -> None:
        self.lease = lease
        self.failed = failed
        """Whether the work under the lock failed, or was rolled back."""
        self.stage = Stage.WAITING
        self.ended = False
        """Whether the transactions have ended."""
        self.completed_by_rollback = False
        """Whether the code that rolls back now completes this afterwards."""
        self._siblings = siblings
        self._completing = threading.RLock()
        self._joined = joins_transaction(lock_backends[lease.backend])
        self._rolled_back = False
        """Whether the grant may have been rolled back with the work under the lock."""
        self._in_savepoint = any(map(is_in_savepoint, transactions))
        self._background = background(lease.backend)
        self._background.pin(self)
        AfterTransactions(transactions, self._transactions_ended)
        siblings.append(self)  # last: from now on, commits depend on the lease

    @property
    def guards(self) -> bool:
        """Whether a commit still depends on the lease."""
        return not self.ended and self.stage in (Stage.WAITING, Stage.GUARDING)

    def guard(self, lease: LeaseState) -> None:
        """Make commits depend on this lease instead, which continues the released one."""
        self.lease, self.stage = lease, Stage.GUARDING

    def complete(self, *, in_rollback: bool = False) -> None:
        """Release the lease, unless that was done. Errors are logged.

        Two threads may call this at once: one of them waits for the other. In the midst of a
        rollback Django's connection is of no use to a signal's receivers: the background thread
        calls them.
        """
        try:
            with self._completing:
                stage, self.stage = self.stage, Stage.DONE
                was_tentative = stage is Stage.TENTATIVE  # which claimed the lease's end
                ours = was_tentative or (stage is Stage.WAITING and self.lease.claim_end())
                released = ours and self._release()
            if not ours:
                return
            is_lost = not (released or was_tentative or self._rolled_back)
            announce = partial(end_lost if is_lost else end_released, self.lease)
            if in_rollback:
                self._background.submit(announce)
            else:
                announce()
        except Exception as error:
            end = "by itself" if self.lease.ttl else "only by its store's force_release()"
            logger.exception(
                "%s could not be released after a transaction; it ends %s.",
                self.lease,
                end,
                extra=self.lease.log_fields(reason=str(error)),
            )
        except BaseException:
            mark_unreleased(self.lease)
            raise
        finally:
            self.close()

    def _release(self) -> bool:
        stop_renewal(self.lease)
        return ask(
            lock_backends[self.lease.backend],
            lambda calls: release_in_store(calls, self.lease, failed=self.failed),
        )

    def _transactions_ended(self, committed: bool) -> None:
        self.ended = True
        self.failed = self.failed or not committed
        self._rolled_back = self._joined and not committed
        if committed and self.stage is Stage.TENTATIVE and not self._in_savepoint:
            self.close()
            end_released(self.lease)
        elif committed:
            self.complete()
        elif not self.completed_by_rollback:
            self._background.submit(self.complete)

    def close(self) -> None:
        """Remove this deferred release: nothing is left to do."""
        self.stage = Stage.DONE
        self._background.unpin(self)
        with suppress(ValueError):
            self._siblings.remove(self)
