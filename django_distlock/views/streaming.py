"""A response whose content is made while it is sent keeps its lock until it is closed."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from django.http import FileResponse, StreamingHttpResponse

from django_distlock.leases.lease import Lease


def keep_until_closed(result: Any, lease: Lease) -> bool:
    """Let the lease end with this response, if it is one whose content is yet to be made.

    A FileResponse's is there already.
    """
    if lease.released or not isinstance(result, StreamingHttpResponse):
        return False
    if isinstance(result, FileResponse):
        return False

    def release() -> None:
        if not lease.released:
            lease.cleanup_release()

    # Under ASGI, Django doesn't close a response whose content can't be made or sent to its end.
    content: Any = result._iterator  # type: ignore[attr-defined]
    wrap: Any = _until_its_end_async if result.is_async else _until_its_end
    result.streaming_content = wrap(content, release)
    closers: list[Any] = result._resource_closers  # type: ignore[attr-defined]
    closers.append(release)
    return True


def _until_its_end(content: Iterator[bytes], release: Callable[[], None]) -> Iterator[bytes]:
    try:
        yield from content
    except BaseException:
        release()
        raise


async def _until_its_end_async(
    content: AsyncIterator[bytes], release: Callable[[], None]
) -> AsyncIterator[bytes]:
    try:
        async for chunk in content:
            yield chunk
    except BaseException:
        try:
            if close := getattr(content, "aclose", None):
                await close()
        finally:
            release()
        raise
