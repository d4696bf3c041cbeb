"""A response whose content is produced while it is sent keeps its lock until it is closed."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

from django.http import FileResponse, StreamingHttpResponse

from django_distlock.leases.cleanup import cleanup_release
from django_distlock.leases.owned_lease import OwnedLease
from django_distlock.runtime import streamed_content


def release_when_closed(result: Any, lease: OwnedLease) -> bool:
    """Release the lease when this response is closed. False if it has no content to produce yet.

    A FileResponse's content exists already.
    """
    if lease.released or not isinstance(result, StreamingHttpResponse):
        return False
    if isinstance(result, FileResponse):
        return False
    content = streamed_content(result)
    # When Django closes a response, it closes the content, too.
    if isinstance(content, AsyncIterable):
        result.streaming_content = _AsyncContent(content, lease)
    else:
        result.streaming_content = _Content(content, lease)
    return True


class _Held:
    """Content that is produced under a lock."""

    def __init__(self, lease: OwnedLease) -> None:
        self._lease = lease

    def close(self) -> None:
        """Release the lock, if that has not been done."""
        if not self._lease.released:
            cleanup_release(self._lease)


class _Content(_Held):
    """Under ASGI, Django doesn't close a response whose content fails: that releases, too."""

    def __init__(self, content: Iterable[Any], lease: OwnedLease) -> None:
        super().__init__(lease)
        self._content = content

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._content
        except BaseException:
            self.close()
            raise


class _AsyncContent(_Held):
    """See _Content."""

    def __init__(self, content: AsyncIterable[Any], lease: OwnedLease) -> None:
        super().__init__(lease)
        self._content = content

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for chunk in self._content:
                yield chunk
        except BaseException:
            try:
                if close := getattr(self._content, "aclose", None):
                    await close()
            finally:
                self.close()
            raise
