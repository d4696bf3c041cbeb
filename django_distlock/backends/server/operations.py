"""What operators ask a lock server: to list locks, release them by force, and pause grants."""

from collections.abc import Iterator
from typing import Any, cast

from django_distlock import clocks
from django_distlock.backends.operations import (
    ListingStore,
    PausingStore,
    validate_claim,
    validate_listing,
    validate_pause,
    validate_query,
)
from django_distlock.backends.time_budget import Budget
from django_distlock.records import LockInfo, LockPage, LockQuery, Pause, ServerStatus, WaiterInfo
from django_distlock.semaphores.validation import validate_prefix, validate_semaphore
from django_distlock.server.listings import PAGE

from .connections import LockServer, Request
from .messages import page_request, read_lock, read_locks, read_page, read_pause, read_waiters


class ServerOperations(ListingStore, PausingStore):
    """The part of a lock server's backend that is for operators."""

    server: LockServer
    store_timeout: float
    _budget: Budget

    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        prefix, limit = validate_listing(prefix, limit)
        request: Request = {"do": "held", "prefix": prefix, "cursor": None}
        if limit is not None and limit <= PAGE:
            request["limit"] = limit
        found: list[LockInfo] = []
        for answer in self._ask_on(request):
            found += read_locks(answer)
        yield from sorted(found, key=lambda lock: lock.semaphore)[:limit]

    def page(self, query: LockQuery) -> LockPage:
        """See ListingStore. The server looks at its locks, and sends only those on the page.

        If more than `window` match, they are those that it has had longest.
        """
        query = validate_query(query)
        *_, answer = self._ask_on(page_request(query, self.window))
        return read_page(answer, query)

    def _ask_on(self, request: Request) -> Iterator[Request]:
        """Yield the answers to a request that the server carries out in several steps."""
        while True:
            answer = self.server.ask(request, clocks.monotonic() + self.store_timeout)
            yield answer
            request["cursor"] = answer["cursor"]
            if request["cursor"] is None:
                break

    def find(self, semaphore: str) -> LockInfo | None:
        return read_lock(self._ask("find", semaphore=validate_semaphore(semaphore)))

    def waiters(self, semaphore: str) -> list[WaiterInfo]:
        """See ListingStore. The server tells of the first thousand."""
        return read_waiters(self._ask("waiters", semaphore=validate_semaphore(semaphore)))

    def force_release(self, semaphore: str, token: int, *, by: str = "") -> bool:
        semaphore, token, by = validate_claim(semaphore, token, by)
        released = bool(self._ask("force_release", semaphore=semaphore, token=token)["released"])
        if released:
            self.send_force_released(semaphore, token, by)
        return released

    def pause(
        self, prefix: str, seconds: float | None = None, *, reason: str = "", by: str = ""
    ) -> Pause:
        prefix, seconds, reason, by = validate_pause(prefix, seconds, reason, by)
        answer = self._ask("pause", prefix=prefix, seconds=seconds, reason=reason, by=by)
        return read_pause(answer["pause"], answer["now"])

    def resume(self, prefix: str) -> bool:
        return bool(self._ask("resume", prefix=validate_prefix(prefix))["resumed"])

    def pauses(self) -> list[Pause]:
        answer = self._ask("pauses")
        return [read_pause(each, answer["now"]) for each in answer["pauses"]]

    def status(self) -> ServerStatus:
        return cast("ServerStatus", self._ask("status"))

    def _ask(self, do: str, **members: Any) -> Request:
        return self.server.ask({"do": do, **members}, self._budget.deadline())
