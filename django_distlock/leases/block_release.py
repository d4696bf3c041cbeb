"""What is done at the end of a block or of a decorated call."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from django_distlock.exceptions import LockBackendUnavailable, LockLost

from .lease import Lease
from .registry import BlockEntry, current_registry

logger = logging.getLogger("django_distlock")


def release_block(lease: Lease, *, failed: bool, answered: bool = False) -> None:
    """Release at the end of a block. LockLost if it was lost, unless the block `failed` already.

    If the store is down then, the lease ends with its ttl: what was done under it stays done, and
    the trouble is logged. Without a ttl it would stay for ever: LockBackendUnavailable is raised.

    If the block was a view that has `answered`, and no transaction can undo it any more, what would
    be raised is only logged: nobody may take it for undone.
    """
    with _leaving(lease, failed, answered) as ending:
        if ending:
            ending.lost = not lease.release_as(failed=failed)


async def arelease_block(lease: Lease, *, failed: bool, answered: bool = False) -> None:
    """See release_block()."""
    with _leaving(lease, failed, answered) as ending:
        if ending:
            ending.lost = not await lease.arelease_as(failed=failed)


def end_interrupted_block(entry: BlockEntry) -> None:
    """Have the lease renewed no more, after leaving its block raised or was interrupted.

    Unless an outer block has it, or its release waits for transactions.
    """
    lease, reentries = entry.lease, entry.reentries
    if current_registry().is_in_block_with(lease):
        lease.limit_reentries(reentries - 1)
    else:
        lease.end_interrupted_release(reentries)


class _Ending:
    """What came of a release at the end of a block."""

    lost = False


@contextmanager
def _leaving(lease: Lease, failed: bool, answered: bool) -> Iterator[_Ending | None]:
    """Let the lease be released, if that is to be done, and see to what comes of it."""
    ending = _Ending()
    if lease.released:
        yield None
    elif current_registry().is_in_block_with(lease):
        # Whatever this block did about it, the lease is the outer one's.
        lease.limit_reentries(lease.reentries - 1)
        ending.lost = not lease.held
        yield None
    else:
        try:
            yield ending
        except LockBackendUnavailable:
            if lease.ttl is None and not (failed or answered):
                raise
            end = "by itself" if lease.ttl else "only by its store's force_release()"
            logger.exception("%s could not be released; it ends %s.", lease, end)
            ending.lost = not lease.remaining
    if ending.lost and failed:
        logger.error("%s was lost before a block that failed ended.", lease)
    elif ending.lost and answered:
        logger.error(
            "%s was lost before its view ended. What that did is kept, and its answer given; "
            "somebody else may have done the same.",
            lease,
        )
    elif ending.lost:
        raise LockLost(f"{lease} was lost before its block ended.", lease)
