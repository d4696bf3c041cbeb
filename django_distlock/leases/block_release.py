"""Block release: at the end of a block, or of a decorated call."""

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
    if (lost := _lost_without_release(lease)) is None:
        try:
            lost = not release(lease, failed=failed)
        except LockBackendUnavailable as error:
            lost = _log_failure(lease, error, raised=not (failed or answered))
    if lost:
        _report_loss(lease, failed, answered)


async def arelease_block(lease: LeaseState, *, failed: bool, answered: bool = False) -> None:
    """See release_block()."""
    if (lost := _lost_without_release(lease)) is None:
        try:
            lost = not await arelease(lease, failed=failed)
        except LockBackendUnavailable as error:
            lost = _log_failure(lease, error, raised=not (failed or answered))
    if lost:
        _report_loss(lease, failed, answered)


def end_interrupted_block(entry: BlockEntry) -> None:
    """Finish an interrupted or failed release_block(): the lease is no longer renewed.

    Unless it belongs to an outer block, too, or its release waits for transactions.
    """
    lease, reentries = entry.lease, entry.reentries
    if current_registry().is_in_block_with(lease):
        lease.limit_reentries(reentries - 1)
    else:
        end_interrupted_release(lease, reentries)


def _lost_without_release(lease: LeaseState) -> bool | None:
    """Return None if the block has to release the lease; otherwise, whether it was lost.

    It may have been released in the block, or be an outer block's.
    """
    if lease.released:
        return False
    if current_registry().is_in_block_with(lease):
        # However often this block released it, the lease is the outer one's.
        lease.limit_reentries(lease.reentries - 1)
        return not lease.held
    return None


def _log_failure(lease: LeaseState, error: LockBackendUnavailable, *, raised: bool) -> bool:
    """Log that the release failed, or raise that, for a lock that would stay for ever.

    Return whether the lease was lost.
    """
    if lease.ttl is None and raised:
        raise error
    end = "by itself" if lease.ttl else "only by its store's force_release()"
    fields = lease.log_fields(reason=str(error))
    logger.error("%s could not be released; it ends %s.", lease, end, extra=fields, exc_info=error)
    return not lease.remaining


def _report_loss(lease: LeaseState, failed: bool, answered: bool) -> None:
    if failed:
        logger.error(
            "%s was lost before a block that failed ended.", lease, extra=lease.log_fields()
        )
    elif answered:
        logger.error(
            "%s was lost before its view ended. What that did is kept, and its answer given; "
            "somebody else may have done the same.",
            lease,
            extra=lease.log_fields(),
        )
    else:
        raise LockLost(
            f"{lease} was lost before its block ended: another holder may have worked meanwhile.",
            lease,
        )
