"""The lock server's backend: what is asked for each action, and what an answer means."""

import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import Any, ClassVar, Final, cast

from django.core import checks
from django.core.checks import CheckMessage

from django_distlock import clocks
from django_distlock.arguments import validate_bool, validate_text
from django_distlock.backends.base import (
    AsyncStore,
    ListingStore,
    QueueingStore,
    validate_claim,
    validate_listing,
)
from django_distlock.backends.batches import Outcome
from django_distlock.backends.cache_checks import validate_store_timeout
from django_distlock.backends.memory import lock_info
from django_distlock.backends.sockets.pools import Budget
from django_distlock.exceptions import InvalidLockBackend, LockBackendUnavailable
from django_distlock.fields import to_datetime
from django_distlock.records import (
    LOST,
    Claim,
    Grant,
    LockInfo,
    Owner,
    Place,
    Released,
    Renewal,
    RenewalOutcome,
)
from django_distlock.server.addresses import DEFAULT, Address, parse_address
from django_distlock.server.listings import PAGE
from django_distlock.server.locks import LockSnapshot
from django_distlock.server.secret import check_secret, read_secret

from .connections import LockServer, Request
from .listening import Listener, QueuedPlace, listener

AROUND: Final = 100
"""Bytes, about, of a lease in it, beside its texts."""
SPOILED: Final = {"invalid", "frame", "internal"}
"""What a server answers to a request because of what is in it."""


class ServerBackend(ListingStore, QueueingStore, AsyncStore):
    """Keeps locks in the process that `manage.py run_lock_server` runs, at `address`.

    That is "host:port", "[::1]:port" or "unix:/path". The server is to know the same `secret`, a
    text, or what `secret_file` has. What isn't on this machine is spoken to by TLS alone: `tls`,
    with the system's certificate authorities, or those in the file `tls_ca`. A call ends within
    `store_timeout` seconds.

    With `release_on_disconnect`, a lease ends when its process's connection does: so the lock of a
    worker that was killed is free at once. But a worker that is only cut off from the server then
    goes on without the lock until it notices, while another one gets it.

    A ttl is not longer than the server's --max-ttl, nor without end. A server that was killed
    grants nothing for that long, while holders make their leases known again when these are
    renewed. It does not guarantee that a lock outlasts the loss of the server's machine, or that
    anybody gets one while it is down: there is one server, and no replica.
    """

    supports_fencing: ClassVar[bool] = True

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
    ) -> None:
        super().__init__(alias, ttl=ttl, guard_commits=guard_commits)
        self.store_timeout = validate_store_timeout(alias, store_timeout)
        self.release_on_disconnect = release_on_disconnect
        self.tls_ca = tls_ca
        self.tls = tls or tls_ca is not None
        try:
            validate_bool("tls", tls)
            validate_bool("release_on_disconnect", release_on_disconnect)
            if tls_ca is not None:
                validate_text("tls_ca", tls_ca, ", a path")
            self.address = parse_address(address)
            self.secret = _secret(secret, secret_file)
            if not (self.tls or self.address.is_local):
                raise ValueError(f"{self.address} is not on this machine: give tls, or tls_ca")
            if self.tls and self.address.path:
                raise ValueError("a unix socket needs no TLS: leave out tls and tls_ca")
            self.server = _server(self.address, self.secret, store_timeout, self.tls, tls_ca)
        except (OSError, TypeError, ValueError) as error:
            reason = str(error).removesuffix(".")
            raise InvalidLockBackend(f"DISTLOCK[{alias!r}]: {reason}.") from error
        self._budget = Budget(store_timeout)

    def time_budget(self) -> Budget:
        return self._budget

    def new_deadline(self) -> float:
        return clocks.monotonic() + self.store_timeout

    def acquire(self, semaphore: str, owner: str, ttl: float | None, holder: str) -> Grant | None:
        request, undo = _acquisition(semaphore, owner, ttl, holder)
        ask = self._binding(ttl).bind if self.release_on_disconnect else self.server.ask
        return _grant(ask(request, self._budget.deadline(), undo))

    async def aacquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str, *, deadline: float
    ) -> Grant | None:
        """See acquire()."""
        request, undo = _acquisition(semaphore, owner, ttl, holder)
        ask = self._binding(ttl).abind if self.release_on_disconnect else self.server.aask
        return _grant(await ask(request, deadline, undo))

    def _binding(self, ttl: float | None) -> Listener:
        """Return what asks for leases that end with the connection on which it listens."""
        found = listener(self.server)
        found.stay(self.alias, ttl or 0)
        return found

    def join(
        self, semaphore: str, owner: str, holder: str, wake: Callable[[], object]
    ) -> QueuedPlace | None:
        request = _joining(semaphore, owner, holder)
        return listener(self.server).join(request, wake, self._budget.deadline())

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
        request = _joining(semaphore, owner, holder)
        return await listener(self.server).ajoin(request, wake, deadline)

    def leave(self, place: Place, granted: bool) -> None:
        cast("QueuedPlace", place).leave(granted=granted, deadline=self._budget.deadline())

    async def aleave(self, place: Place, granted: bool, *, deadline: float) -> None:
        """See leave()."""
        await cast("QueuedPlace", place).aleave(granted=granted, deadline=deadline)

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        outcome = Outcome()
        if leases:
            batches = _batches(leases, self.server.max_frame // 2)
            self._renew(batches, outcome, self._budget.deadline())
        return outcome.result()

    def _renew(self, batches: list[list[Claim]], outcome: Outcome, deadline: float) -> None:
        """Renew these; of a batch that the server can't take, each lease by itself."""
        spoiled: list[Claim] = []
        for batch, answer in zip(batches, self._ask_to_renew(batches, deadline), strict=True):
            if not isinstance(answer, Exception):
                self._note(outcome, batch, answer)
            elif len(batch) > 1 and getattr(answer.__cause__, "code", None) in SPOILED:
                spoiled += batch
            else:
                outcome.failed(batch, answer)
        if spoiled:
            self._renew([[lease] for lease in spoiled], outcome, deadline)

    def _ask_to_renew(
        self, batches: list[list[Claim]], deadline: float
    ) -> list[Request | Exception]:
        """Return the answer to each batch, or why there is none."""
        requests = [_renewal(batch) for batch in batches]
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
        outcome = Outcome()
        binds = self.release_on_disconnect
        ask = self._binding(_longest(leases)).abind if binds else self.server.aask
        for batch in _batches(leases, self.server.max_frame // 2):
            self._note(outcome, batch, await ask(_renewal(batch), deadline))
        return outcome.result()

    def _note(self, outcome: Outcome, leases: list[Claim], answer: Request) -> None:
        """Record what the server said of each lease."""
        for lease, end in zip(leases, answer["expires_at"], strict=True):
            if isinstance(end, dict):
                reason = LockBackendUnavailable(f"{self.server}: {end.get('text')}")
                outcome.failed([lease], reason)
            elif end is None:
                outcome.answered({Owner(lease.owner): LOST})
            else:
                renewed = Renewal(RenewalOutcome.RENEWED, to_datetime(end))
                outcome.answered({Owner(lease.owner): renewed})

    def release(self, lease: Claim, keep: float = 0) -> Released:
        answer = self.server.ask(_release(lease, keep), self._budget.deadline())
        return Released(answer["released"])

    async def arelease(self, lease: Claim, keep: float = 0, *, deadline: float) -> Released:
        """See release()."""
        answer = await self.server.aask(_release(lease, keep), deadline)
        return Released(answer["released"])

    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        prefix, limit = validate_listing(prefix, limit)
        request: Request = {"do": "held", "prefix": prefix, "cursor": None}
        if limit is not None and limit <= PAGE:
            request["limit"] = limit
        found: list[LockInfo] = []
        while True:
            answer = self.server.ask(request, clocks.monotonic() + self.store_timeout)
            found += [_info(answer["now"], *lock) for lock in answer["locks"]]
            request["cursor"] = answer["cursor"]
            if request["cursor"] is None:
                break
        yield from sorted(found, key=lambda lock: lock.semaphore)[:limit]

    def force_release(self, semaphore: str, token: int) -> bool:
        semaphore, token = validate_claim(semaphore, token)
        request = {"do": "force_release", "semaphore": semaphore, "token": token}
        released = bool(self.server.ask(request, self._budget.deadline())["released"])
        if released:
            self.send_force_released(semaphore, token)
        return released

    def status(self) -> dict[str, Any]:
        """Return what the server says of itself."""
        return self.server.ask({"do": "status"}, self._budget.deadline())

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


def _info(
    now: int, semaphore: str, token: int, holder: str, acquired_at: int, left: float
) -> LockInfo:
    return lock_info(LockSnapshot(semaphore, "", token, holder, acquired_at, left), now)


def _secret(secret: str | None, secret_file: str | None) -> bytes:
    if (secret is None) is (secret_file is None):
        raise ValueError("give either secret, a text, or secret_file, the path of a file with it")
    if secret is not None:
        return check_secret(secret)
    try:
        return read_secret(str(secret_file))
    except (OSError, ValueError) as error:
        raise ValueError(f"secret_file: {error}") from error


_servers: Final[dict[tuple[Any, ...], LockServer]] = {}


def _server(
    address: Address, secret: bytes, timeout: float, tls: bool, tls_ca: str | None
) -> LockServer:
    """Return this process's way to the server: its threads have their connections together."""
    place = address, secret, timeout, tls, tls_ca
    found = _servers.get(place)
    if found is None:
        context = _trusting(tls_ca) if tls else None
        found = _servers.setdefault(place, LockServer(address, secret, timeout, context))
    return found


def _trusting(tls_ca: str | None) -> ssl.SSLContext:
    """Return what speaks TLS to a server with a certificate of these authorities."""
    try:
        return ssl.create_default_context(cafile=tls_ca)
    except OSError as error:
        raise ValueError(f"tls_ca, {tls_ca!r}, can't be used: {error}") from error


def _acquisition(
    semaphore: str, owner: str, ttl: float | None, holder: str
) -> tuple[Request, Request]:
    """Return what acquires, and what undoes that."""
    names = {"semaphore": semaphore, "owner": owner}
    acquire = {"do": "acquire", **names, "ttl": ttl, "holder": _shorten(holder)}
    return acquire, {"do": "release", **names}


def _joining(semaphore: str, owner: str, holder: str) -> Request:
    return {"do": "join", "semaphore": semaphore, "owner": owner, "holder": _shorten(holder)}


def _grant(answer: Request) -> Grant | None:
    token = answer["token"]
    if token is None:
        return None
    return Grant(token, to_datetime(answer["acquired_at"]), to_datetime(answer["expires_at"]))


def _longest(leases: Iterable[Claim]) -> float:
    return max((lease.ttl or 0 for lease in leases), default=0)


def _batches(leases: Sequence[Claim], room: int) -> list[list[Claim]]:
    """Return those together that go into one request of so many bytes, about."""
    batches: list[list[Claim]] = [[]]
    size = 0
    for lease in leases:
        # JSON has up to 12 bytes for a character, but then it is not of many.
        length = AROUND + len(ascii(lease.semaphore)) + len(ascii(_shorten(lease.holder)))
        if size + length > room and batches[-1]:
            batches.append([])
            size = 0
        batches[-1].append(lease)
        size += length
    return batches if leases else []


def _renewal(leases: list[Claim]) -> Request:
    return {
        "do": "renew",
        "leases": [
            [lease.semaphore, lease.owner, lease.ttl, lease.token, _shorten(lease.holder)]
            for lease in leases
        ],
    }


def _try(ask: Callable[[], Request]) -> Request | Exception:
    try:
        return ask()
    except (LockBackendUnavailable, ValueError) as error:
        return error


def _release(lease: Claim, keep: float) -> Request:
    return {
        "do": "release",
        "semaphore": lease.semaphore,
        "owner": lease.owner,
        "keep": keep,
        "token": lease.token,
        "left": lease.remaining,
    }


@lru_cache
def _shorten(holder: str) -> str:
    """Return what the server takes of a text that is for people."""
    return holder if len(holder) <= 1_000 else f"{holder[:999]}…"
