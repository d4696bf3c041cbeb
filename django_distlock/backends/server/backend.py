"""The backend of the lock server."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import ClassVar, Final, cast

from django.core import checks
from django.core.checks import CheckMessage

from django_distlock import clocks
from django_distlock.arguments import validate_bool, validate_text
from django_distlock.backends.base import AsyncStore, QueueingStore
from django_distlock.backends.batches import BatchedRenewals
from django_distlock.backends.sockets.calls import BLOCKING, IN_LOOP
from django_distlock.backends.sync_driver import run_sync
from django_distlock.backends.time_budget import Budget, validate_store_timeout
from django_distlock.exceptions import (
    InvalidLockBackend,
    LockBackendUnavailable,
    UnencryptedServer,
)
from django_distlock.records import (
    Claim,
    Grant,
    Owner,
    Place,
    Refusal,
    Released,
    Renewal,
)
from django_distlock.server.addresses import DEFAULT, parse_address

from .connections import Request
from .listening import Listener
from .messages import (
    acquire_request,
    join_request,
    read_grant,
    read_renewal,
    release_request,
    renew_request,
    split_into_frames,
)
from .operations import ServerOperations
from .places import QueuedPlace
from .servers import secret_of, shared_server

REQUEST_ERRORS: Final = {"invalid", "frame", "internal"}
"""The codes of errors that are due to the content of a request."""


class ServerBackend(ServerOperations, QueueingStore, AsyncStore):
    """A store in the process that `manage.py run_lock_server` runs, at `address`.

    Both sides know the same secret: a text, `secret`, or the content of `secret_file`. Off this
    machine, TLS is required: `tls` trusts the system's certificate authorities, `tls_ca` those in a
    file. A call ends within `store_timeout` seconds.

    With `release_on_disconnect`, a lease also ends with its process's connection, so the lock of a
    killed worker is free at once. But a worker that is only cut off from the server goes on without
    the lock until it notices, and another one may get the lock meanwhile.

    A ttl is at most the server's `--max-ttl`. After a crash, the server grants nothing for that
    long; holders reclaim their leases by renewing them.

    **Not guaranteed:** that a lock outlasts the loss of the server's machine, or that one is
    granted while the server is down. There is one server, and no replica.
    """

    supports_fencing: ClassVar[bool] = True
    tells_holder: ClassVar[bool] = True
    lists_renewals: ClassVar[bool] = True
    store_timeout: float

    def __init__(
        self,
        alias: str,
        *,
        address: str = DEFAULT,
        secret: str | None = None,
        secret_file: str | None = None,
        tls: bool = False,
        tls_ca: str | None = None,
        release_on_disconnect: bool = False,
        ttl: float | None = 60,
        store_timeout: float = 2,
        guard_commits: bool = True,
        events: bool = False,
    ) -> None:
        super().__init__(alias, ttl=ttl, guard_commits=guard_commits, events=events)
        self.store_timeout = validate_store_timeout(alias, store_timeout)
        self.release_on_disconnect = release_on_disconnect
        self.tls_ca = tls_ca
        self.tls = tls or tls_ca is not None
        try:
            validate_bool("tls", tls)
            validate_bool("release_on_disconnect", release_on_disconnect)
            if tls_ca is not None:
                validate_text("tls_ca", tls_ca, ", a path")
            if secret_file is not None:
                validate_text("secret_file", secret_file, ", a path")
            self.address = parse_address(address)
            self.secret = secret_of(secret, secret_file)
            if self.tls and self.address.path:
                raise ValueError("a unix socket needs no TLS: leave out tls and tls_ca")
            self.server = shared_server(self.address, self.secret, store_timeout, self.tls, tls_ca)
        except (OSError, TypeError, ValueError) as error:
            reason = str(error).removesuffix(".")
            raise InvalidLockBackend(f"DISTLOCK[{alias!r}]: {reason}.") from error
        if not (self.tls or self.address.is_local):
            raise UnencryptedServer(
                f"DISTLOCK[{alias!r}]: {self.address} is not on this machine: give tls, or tls_ca."
            )
        self._budget = Budget(store_timeout)

    def time_budget(self) -> Budget:
        return self._budget

    def new_deadline(self) -> float:
        return clocks.monotonic() + self.store_timeout

    def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | Refusal:
        request, undo = acquire_request(semaphore, owner, ttl, holder, next(self.server.attempts))
        ask = self._binding(ttl).bind if self.release_on_disconnect else self.server.ask
        return read_grant(ask(request, self._budget.deadline(), undo))

    async def aacquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str, *, deadline: float
    ) -> Grant | Refusal:
        """See acquire()."""
        request, undo = acquire_request(semaphore, owner, ttl, holder, next(self.server.attempts))
        ask = self._binding(ttl).abind if self.release_on_disconnect else self.server.aask
        return read_grant(await ask(request, deadline, undo))

    def _binding(self, ttl: float | None) -> Listener:
        """Return the listener: leases end with its connection."""
        found = Listener.of(self.server)
        found.expect_lease(self.alias, ttl or 0)
        return found

    def join(
        self, semaphore: str, owner: str, holder: str, wake: Callable[[], object]
    ) -> QueuedPlace | None:
        request = join_request(semaphore, owner, holder)
        found, deadline = Listener.of(self.server), self._budget.deadline()
        return run_sync(found.join(BLOCKING, request, wake, deadline))

    async def ajoin(
        self,
        semaphore: str,
        owner: str,
        holder: str,
        wake: Callable[[], object],
        *,
        deadline: float,
    ) -> QueuedPlace | None:
        """See join()."""
        request = join_request(semaphore, owner, holder)
        return await Listener.of(self.server).join(IN_LOOP, request, wake, deadline)

    def leave(self, place: Place, granted: bool) -> None:
        cast("QueuedPlace", place).leave(granted=granted, deadline=self._budget.deadline())

    async def aleave(self, place: Place, granted: bool, *, deadline: float) -> None:
        """See leave()."""
        await cast("QueuedPlace", place).aleave(granted=granted, deadline=deadline)

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        renewals = BatchedRenewals()
        if leases:
            batches = split_into_frames(leases, self.server.max_frame // 2)
            self._renew(batches, renewals, self._budget.deadline())
        return renewals.result()

    def _renew(
        self, batches: list[list[Claim]], renewals: BatchedRenewals, deadline: float
    ) -> None:
        """Renew these batches; if the server rejects one, renew each of its leases by itself."""
        rejected: list[Claim] = []
        for batch, answer in zip(batches, self._ask_to_renew(batches, deadline), strict=True):
            if not isinstance(answer, Exception):
                self._record(renewals, batch, answer)
            elif len(batch) > 1 and getattr(answer.__cause__, "code", None) in REQUEST_ERRORS:
                rejected += batch
            else:
                renewals.add_failed(batch, answer)
        if rejected:
            self._renew([[lease] for lease in rejected], renewals, deadline)

    def _ask_to_renew(
        self, batches: list[list[Claim]], deadline: float
    ) -> list[Request | Exception]:
        """Return the answer to each batch, or the error."""
        requests = [renew_request(batch) for batch in batches]
        if self.release_on_disconnect:
            bind = self._binding(_longest(chain.from_iterable(batches))).bind
            return [_try(partial(bind, request, deadline)) for request in requests]
        try:
            answers = self.server.ask_several(requests, deadline)
        except LockBackendUnavailable as error:
            return [error] * len(batches)
        return [_try(partial(self.server.understand, answer)) for answer in answers]

    async def arenew(self, leases: Sequence[Claim], *, deadline: float) -> dict[str, Renewal]:
        """See renew()."""
        renewals = BatchedRenewals()
        binds = self.release_on_disconnect
        ask = self._binding(_longest(leases)).abind if binds else self.server.aask
        for batch in split_into_frames(leases, self.server.max_frame // 2):
            self._record(renewals, batch, await ask(renew_request(batch), deadline))
        return renewals.result()

    def _record(self, renewals: BatchedRenewals, leases: list[Claim], answer: Request) -> None:
        """Record the server's result for each lease."""
        for lease, end in zip(leases, answer["expires_at"], strict=True):
            if isinstance(end, dict):
                reason = LockBackendUnavailable(f"{self.server}: {end.get('text')}")
                renewals.add_failed([lease], reason)
            else:
                renewals.add({Owner(lease.owner): read_renewal(end)})

    def release(self, lease: Claim, keep: float = 0) -> Released:
        answer = self.server.ask(release_request(lease, keep), self._budget.deadline())
        return Released(answer["released"])

    async def arelease(self, lease: Claim, keep: float = 0, *, deadline: float) -> Released:
        """See release()."""
        answer = await self.server.aask(release_request(lease, keep), deadline)
        return Released(answer["released"])

    def check_deployment(self) -> list[CheckMessage]:
        longest = self.status()["limits"]["max_ttl"]
        if self.ttl is None or self.ttl <= longest:
            return []
        return [
            checks.Error(
                f"DISTLOCK[{self.alias!r}]: {self.server} grants {longest:.10g} seconds at most, "
                f"but ttl is {self.ttl:.10g}: a lock that is asked for without another is refused.",
                hint=f"Lower ttl in OPTIONS, or start the server with --max-ttl {self.ttl:.10g}.",
                id="distlock.E004",
            )
        ]

    @property
    def keeps_open(self) -> bool:
        return True

    def close(self) -> None:
        self.server.close()


def _longest(leases: Iterable[Claim]) -> float:
    return max((lease.ttl or 0 for lease in leases), default=0)


def _try(ask: Callable[[], Request]) -> Request | Exception:
    try:
        return ask()
    except (LockBackendUnavailable, ValueError) as error:
        return error
