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
    """What operators ask of a store. A store that can't do it raises `LockNotSupported`."""

    alias: str

    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        """Return held and stale locks whose semaphore begins with `prefix`, in their order."""
        raise self._unsupported("list locks")

    def find(self, semaphore: str) -> LockInfo | None:
        """Return what is known of one lock; None if it is free, and nothing is known."""
        raise self._unsupported("list locks")

    def page(self, query: LockQuery) -> LockPage:
        """Return a page of the list of locks, for people who search it."""
        raise self._unsupported("list locks")

    def waiters(self, semaphore: str) -> list[WaiterInfo] | None:
        """Return the waiters in the store's queue, first come first; None if that isn't known."""
        return None

    def force_release(self, semaphore: str, token: int, *, by: str = "") -> bool:
        """Take a lock from its holder if its token is still this one. Return whether it was.

        `by` names the operator, for people.
        """
        raise self._unsupported("release a lock by force")

    def pause(
        self, prefix: str, seconds: float | None = None, *, reason: str = "", by: str = ""
    ) -> Pause:
        """Grant no lock whose semaphore begins with `prefix`, for `seconds` or until `resume()`.

        Leases that are held go on, and are renewed and released.
        """
        raise self._unsupported("pause locks")

    def resume(self, prefix: str) -> bool:
        """End the pause of exactly this prefix. Return whether there was one."""
        raise self._unsupported("pause locks")

    def pauses(self) -> list[Pause]:
        """Return the pauses in force, in the order of their prefixes."""
        return []

    def clear_stale(self, prefix: str = "", *, dry_run: bool = False) -> Iterator[LockInfo]:
        """Release the locks that expired without a release, and yield each.

        With `dry_run`, only yield them.
        """
        validate_cleaning(prefix, dry_run)
        return iter(())

    def purge_released(
        self, older_than: timedelta, prefix: str = "", *, dry_run: bool = False
    ) -> Iterator[LockInfo]:
        """Delete the locks that were released longer ago than `older_than`, and yield each.

        With `dry_run`, only yield them.
        """
        validate_age("older_than", older_than)
        validate_cleaning(prefix, dry_run)
        return iter(())

    def status(self) -> ServerStatus:
        """Return the counts and limits of a lock server."""
        raise LockNotSupported(
            f"DISTLOCK[{self.alias!r}]: {type(self).__name__} has no status, as the lock server "
            "has. To probe any store, call django_distlock.health.check()."
        )

    def _unsupported(self, action: str) -> LockNotSupported:
        return LockNotSupported(
            f"DISTLOCK[{self.alias!r}]: {type(self).__name__} can't {action}. The database, Redis, "
            "the lock server and the memory store can; here, a lock ends with its ttl."
        )
