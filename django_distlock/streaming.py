"""A response whose content is made while it is sent keeps its lock until it is closed."""

from typing import Any

from django.http import FileResponse, StreamingHttpResponse

from .leases import Lease


def keep_until_closed(result: Any, lease: Lease) -> bool:
    """Let the lease end with this response, if it is one whose content is yet to be made.

    A FileResponse's is there already.
    """
    if lease.released or not isinstance(result, StreamingHttpResponse):
        return False
    if isinstance(result, FileResponse):
        return False

    def give_back() -> None:
        # Nobody is there any more to be told of a loss by an exception.
        if not lease.released:
            lease.release_for_nobody()

    closers: list[Any] = result._resource_closers  # type: ignore[attr-defined]
    closers.insert(0, give_back)
    return True
