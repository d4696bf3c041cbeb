"""Block release: at the end of a block, or of a decorated call."""

from collections.abc import Iterator
from contextlib import contextmanager

from django_distlock.exceptions import LockBackendUnavailable, LockLost
from django_distlock.logs import room_logger

from .registry import BlockEntry, current_registry
from .release import arelease, end_interrupted_release, release
from .state import LeaseState

logger = room_logger("leases")


def release_block(lease: LeaseState, *, failed: bool, answered: bool = False) -> None:
    """Release at the end of a block. LockLost if the lease was lost, unless the block `failed`.

    If the store is down then, the lease ends with its ttl: the work under it stays done, and the
    error is logged. Without a ttl the lock would stay for ever: LockBackendUnavailable is raised.

    If the block was a view that has `answered`, and no transaction can undo it any more, errors
    are only logged: raised, they would say that nothing was done.
    """
    with _outcome(lease, failed, answered) as outcome:
        if outcome:
            outcome.lost = not release(lease, failed=failed)


async def arelease_block(lease: LeaseState, *, failed: bool, answered: bool = False) -> None:
    """See release_block()."""
    with _outcome(lease, failed, answered) as outcome:
        if outcome:
            outcome.lost = not await arelease(lease, failed=failed)


def end_interrupted_block(entry: BlockEntry) -> None:
    """Finish an interrupted or failed release_block(): the lease is no longer renewed.

    Unless it belongs to an outer block, too, or its release waits for transactions.
    """
    lease, reentries = entry.lease, entry.reentries
    if current_registry().is_in_block_with(lease):
        lease.limit_reentries(reentries - 1)
    else:
        end_interrupted_release(lease, reentries)


class _Outcome:
    """The outcome of a release at the end of a block."""

    lost = False


@contextmanager
def _outcome(lease: LeaseState, failed: bool, answered: bool) -> Iterator[_Outcome | None]:
    """Yield an outcome to set if the lease must be released; raise or log it afterwards."""
    outcome = _Outcome()
    if lease.released:
        yield None
    elif current_registry().is_in_block_with(lease):
        # However often this block released it, the lease is the outer one's.
        lease.limit_reentries(lease.reentries - 1)
        outcome.lost = not lease.held
        yield None
    else:
        try:
            yield outcome
        except LockBackendUnavailable as error:
            if lease.ttl is None and not (failed or answered):
                raise
            end = "by itself" if lease.ttl else "only by its store's force_release()"
            fields = lease.log_fields(reason=str(error))
            logger.exception("%s could not be released; it ends %s.", lease, end, extra=fields)
            outcome.lost = not lease.remaining
    if outcome.lost and failed:
        logger.error(
            "%s was lost before a block that failed ended.", lease, extra=lease.log_fields()
        )
    elif outcome.lost and answered:
        logger.error(
            "%s was lost before its view ended. What that did is kept, and its answer given; "
            "somebody else may have done the same.",
            lease,
            extra=lease.log_fields(),
        )
    elif outcome.lost:
        raise LockLost(f"{lease} was lost before its block ended.", lease)
