"""Releases that wait for the end of transactions."""

import logging
import threading
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING

from django.db.backends.base.base import BaseDatabaseWrapper

from django_distlock.backends.base import TransactionalStore
from django_distlock.concurrency.background import background
from django_distlock.concurrency.process_queue import recent_handovers
from django_distlock.concurrency.store_calls import StoreCalls, ask
from django_distlock.conf import lock_backends
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.records import Released
from django_distlock.runtime import is_in_savepoint
from django_distlock.transactions import AfterTransactions

if TYPE_CHECKING:
    from .lease import Lease
    from .registry import LeaseRegistry

logger = logging.getLogger("django_distlock")


class State(Enum):
    """What is to be done about the lease when its transactions have ended."""

    WAITING = auto()
    """Release it."""
    TENTATIVE = auto()
    """It was released in the only open transaction: again, if that is undone."""
    GUARDING = auto()
    """Nothing: it was acquired again, or is lost. But what was done under it is uncommitted yet."""
    DONE = auto()


class DeferredRelease:
    """The release of a lease inside transactions, of which some are open still."""

    def __init__(
        self,
        lease: "Lease",
        registry: "LeaseRegistry",
        transactions: list[BaseDatabaseWrapper],
        failed: bool,
    ) -> None:
        self.lease = lease
        self.failed = failed
        """Whether what was done under the lock did, or was undone."""
        self.state = State.WAITING
        self.ended = False
        """Whether the transactions have ended."""
        self.completed_by_rollback = False
        """Whether who ends them now sees to the release."""
        self._registry = registry
        self._finishing = threading.RLock()
        store = lock_backends[lease.backend]
        self._joined = isinstance(store, TransactionalStore) and store.joins_transaction()
        self._undone = False
        """Whether the grant may have been rolled back with what was done under it."""
        self._in_savepoint = any(map(is_in_savepoint, transactions))
        self._background = background(lease.backend)
        self._background.pin(self)
        AfterTransactions(transactions, self._transactions_ended)
        registry.deferred_releases.append(
            self
        )  # last: what is there guards commits until it is over

    @property
    def guards(self) -> bool:
        """Whether a commit still depends on the lease."""
        return not self.ended and self.state in (State.WAITING, State.GUARDING)

    def complete(self, *, in_rollback: bool = False) -> None:
        """Release now, if that is to be done and wasn't yet. What hinders it is logged.

        Two threads may want to at once: one of them waits for the other. In the midst of a rollback
        Django's connection is of no use to a signal's receivers: they are called elsewhere.
        """
        try:
            with self._finishing:
                state, self.state = self.state, State.DONE
                # A tentative release has claimed its end.
                ours = state is State.TENTATIVE or (
                    state is State.WAITING and self.lease.claim_end()
                )
                released = ours and self._release()
            if not ours:
                return
            given_back = released or state is State.TENTATIVE or self._undone
            tell = self.lease.send_released if given_back else self.lease.send_lost
            if in_rollback:
                self._background.submit(tell)
            else:
                tell()
        except Exception:
            end = "by itself" if self.lease.ttl else "only by its store's force_release()"
            logger.exception(
                "%s could not be released after a transaction; it ends %s.", self.lease, end
            )
        except BaseException:
            self.lease.mark_unreleased()
            raise
        finally:
            self.close()

    def _release(self) -> bool:
        self.lease.stop_renewal()
        return ask(
            lock_backends[self.lease.backend],
            lambda calls: release(calls, self.lease, self.failed),
        )

    def _transactions_ended(self, committed: bool) -> None:
        self.ended = True
        self.failed = self.failed or not committed
        self._undone = self._joined and not committed
        if committed and self.state is State.TENTATIVE and not self._in_savepoint:
            self.close()
            self.lease.send_released()
        elif committed:
            self.complete()
        elif not self.completed_by_rollback:
            self._background.submit(self.complete)

    def close(self) -> None:
        """Have nothing more to do."""
        self.state = State.DONE
        self._background.unpin(self)
        with suppress(ValueError):
            self._registry.deferred_releases.remove(self)


async def release(calls: StoreCalls, lease: "Lease", failed: bool) -> bool:
    """Release; if the reply is lost, ask once more. True if it was ours at the first asking.

    If it `failed`, what was done under the lock may be done again before its `min_hold` is over.
    """
    keep = 0.0 if failed else lease.min_hold_left()
    try:
        released = await calls.release(lease, keep)
    except LockBackendUnavailable as error:
        if not error.reply_lost:
            raise
        lease.doubtful = True
        released = await calls.release(lease, keep)
    if released is Released.HANDED_OVER:
        recent_handovers.add(lease.backend, lease.semaphore)
    # If an earlier request was carried out this one found nothing; the time tells which.
    return bool(released) or (lease.doubtful and lease.remaining > 0)
