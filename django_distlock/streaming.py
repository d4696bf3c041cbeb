"""A response whose content is made while it is sent keeps its lock until it is closed."""

import logging
from typing import Any

from django.http import FileResponse, StreamingHttpResponse

from .leases import Lease

logger = logging.getLogger("django_distlock")


def keep_until_closed(result: Any, lease: Lease) -> bool:
    """Let the lease end with this response, if it is one whose content is yet to be made.

    A FileResponse's is there already.
    """
    if lease.released or not isinstance(result, StreamingHttpResponse):
        return False
    if isinstance(result, FileResponse):
        return False

    def give_back() -> None:
        # Nobody is there any more to be told by an exception.
        if not lease.released and not lease.release():
            logger.error("%s was lost before the response that it is for was sent.", lease)

    closers: list[Any] = result._resource_closers  # type: ignore[attr-defined]
    closers.insert(0, give_back)
    return True
