"""What operators ask of a store, and the answers of one that can't do it."""

from collections.abc import Iterator
from datetime import timedelta

from django_distlock.arguments import validate_age, validate_bool
from django_distlock.exceptions import LockNotSupported
from django_distlock.records import LockInfo, LockPage, LockQuery, Pause, ServerStatus, WaiterInfo
from django_distlock.semaphores.validation import validate_prefix


def validate_cleaning(prefix: str, dry_run: bool) -> str:
    """Return the prefix as a plain text, or raise TypeError or ValueError."""
    validate_bool("dry_run", dry_run)
    return validate_prefix(prefix)


class OperatorCalls:
    """Every store has these methods: a ListingStore and a PausingStore do what they say.

    Others raise LockNotSupported, or answer that there is nothing.
    """

    alias: str

    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        """List held and stale locks, in the order of their semaphores; LockNotSupported."""
        raise self._unsupported("list locks")

    def find(self, semaphore: str) -> LockInfo | None:
        """Return what is known of one lock; None if it is free. LockNotSupported."""
        raise self._unsupported("list locks")

    def page(self, query: LockQuery) -> LockPage:
        """Return a page of the list, for people who search it; LockNotSupported."""
        raise self._unsupported("list locks")

    def waiters(self, semaphore: str) -> list[WaiterInfo] | None:
        """Return the waiters in the store's queue, first come first; None if they aren't known."""
        return None

    def force_release(self, semaphore: str, token: int, *, by: str = "") -> bool:
        """Take a lock from its holder, if it still has this token; LockNotSupported."""
        raise self._unsupported("release a lock by force")

    def pause(
        self, prefix: str, seconds: float | None = None, *, reason: str = "", by: str = ""
    ) -> Pause:
        """Grant no semaphore that begins with the prefix until then; LockNotSupported."""
        raise self._unsupported("pause locks")

    def resume(self, prefix: str) -> bool:
        """End the pause of this prefix; return whether there was one. LockNotSupported."""
        raise self._unsupported("pause locks")

    def pauses(self) -> list[Pause]:
        """Return the pauses in force. By default there are none."""
        return []

    def clear_stale(self, prefix: str = "", *, dry_run: bool = False) -> Iterator[LockInfo]:
        """Release locks that expired without release; yield each. By default there are none."""
        validate_cleaning(prefix, dry_run)
        return iter(())

    def purge_released(
        self, older_than: timedelta, prefix: str = "", *, dry_run: bool = False
    ) -> Iterator[LockInfo]:
        """Delete locks released longer ago than that; yield each. By default there are none."""
        validate_age("older_than", older_than)
        validate_cleaning(prefix, dry_run)
        return iter(())

    def status(self) -> ServerStatus:
        """Return a lock server's counts and limits; LockNotSupported for other stores."""
        raise LockNotSupported(
            f"DISTLOCK[{self.alias!r}]: {type(self).__name__} has no status, as the lock server "
            "has. To probe any store, call django_distlock.health.check()."
        )

    def _unsupported(self, action: str) -> LockNotSupported:
        return LockNotSupported(
            f"DISTLOCK[{self.alias!r}]: {type(self).__name__} can't {action}. The database, Redis, "
            "the lock server and the memory store can; here, a lock ends with its ttl."
        )
