"""The lease: what a holder has; and which task or thread acquired which."""

import math
import os
import socket
import threading
from contextvars import ContextVar
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, NoReturn
from weakref import WeakValueDictionary

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.asyncio import async_unsafe

from . import clocks
from .backends.base import BaseLockBackend, Claim, Grant
from .exceptions import LockLost
from .handler import lock_backends
from .put_off import PutOffRelease, State, release
from .transactions import open_transactions

ASYNC_UNSAFE = (
    "django_distlock's calls wait for the store and can't be made in a running event loop; "
    "use sync_to_async()."
)


class Owner(str):
    """A secret that whoever has it can release the lock by: shown to nobody by accident."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<owner>"


def new_owner() -> Owner:
    """Return an id that nobody can guess, 128 random bits, for one acquisition."""
    return Owner(os.urandom(16).hex())


def describe_holder(label: str = "") -> str:
    """Return who is asking, for people: the label, host, process and thread."""
    holder = f"{_process(os.getpid())} {threading.current_thread().name}"
    if label:
        holder = f"{label} ({holder})"
    # Not every store can keep a NUL or a lone surrogate.
    return holder if holder.isprintable() else holder.encode("unicode_escape").decode()


@cache
def _process(pid: int) -> str:
    return f"{socket.gethostname()} pid {pid}"


class Request(NamedTuple):
    """What one acquisition asks a store for."""

    backend: str
    semaphore: str
    owner: Owner
    ttl: float | None
    holder: str


class Lease:
    """The lock, for a time: until `ttl` seconds after it was acquired or renewed, or a release.

    It may be used, and released, from another thread. It is always true: ask `held`.
    """

    __slots__ = (
        "_deadline",
        "_flow",
        "acquired_at",
        "backend",
        "expires_at",
        "lost",
        "owner",
        "released",
        "semaphore",
        "token",
        "ttl",
    )

    backend: str
    """The alias of its store."""
    owner: Owner
    """The secret by which the store knows it."""
    token: int | None
    """The fencing token: greater than that of every earlier grant of this semaphore."""
    acquired_at: datetime
    """By the store's clock."""
    expires_at: datetime | None
    """By the store's clock; None means not before it is released."""

    released: bool
    """Whether it was given back by release(), or will be when the open transactions have ended."""
    lost: bool
    """Whether it is known not to be ours any more; one that has expired may yet turn out to be."""

    def __init__(self, request: Request, grant: Grant, sent: float, flow: "Flow") -> None:
        self.backend = request.backend
        self.semaphore = request.semaphore
        self.owner = request.owner
        self.ttl = request.ttl
        self.token, self.acquired_at, self.expires_at = grant
        self._deadline = self._end(sent)
        self._flow = flow
        self.released = self.lost = False

    @property
    def held(self) -> bool:
        """Whether the lease is ours as far as is known here: no round trip is made."""
        return not (self.released or self.lost) and self.remaining > 0

    @property
    def remaining(self) -> float:
        """Seconds until it expires, by the local monotonic clock, never more than the store's.

        They are counted from before the request was sent. Infinite for an unlimited ttl.
        """
        return max(0.0, self._deadline - clocks.monotonic())

    def check(self) -> None:
        """Raise LockLost unless the lease is held."""
        if not self.held:
            raise LockLost(f"{self} {self._state()}.", self)

    @async_unsafe(ASYNC_UNSAFE)
    def renew(self) -> None:
        """Let the lease end `ttl` seconds from now; LockLost if it isn't ours any more.

        After LockBackendUnavailable it is unknown which end is true; `remaining` has the earlier.
        """
        self.check()
        sent = clocks.monotonic()
        ends = lock_backends[self.backend].renew([self])
        if self.owner not in ends:
            self.lose()
            self.check()
        self.expires_at = ends[self.owner]
        self._deadline = self._end(sent)

    @async_unsafe(ASYNC_UNSAFE)
    def release(self) -> bool:
        """Give the lock back; False if it was not ours any more, lost or released before.

        Inside a transaction that is done when the outermost atomic block has ended, however it
        ends. After LockBackendUnavailable it can be tried again.
        """
        if self.released or self.lost:
            self._flow.forget(self)
            return False
        store = lock_backends[self.backend]
        if transactions := open_transactions():
            return self._release_in(transactions, store)
        return self._release_now(store)

    def _release_now(self, store: BaseLockBackend) -> bool:
        released = release(store, self)
        self.released, self.lost = released, not released
        self._flow.forget(self)
        return released

    def _release_in(self, transactions: list[BaseDatabaseWrapper], store: BaseLockBackend) -> bool:
        """Release when the transactions have ended.

        Or at once and in the only one, if nobody can have the lock before that ends. If the lease
        is lost, none of them may be committed.
        """
        [first, *others] = transactions
        put_off = PutOffRelease(self, current_flow(), transactions)
        if not self.held:
            put_off.state = State.GUARDING
            self.lose()
        elif others or first.needs_rollback or not store.joins_transaction():
            self.released = True
        else:
            put_off.state = State.TENTATIVE if self._release_now(store) else State.GUARDING
        self._flow.forget(self)
        return self.released

    def lose(self) -> None:
        """Take note that the lease isn't ours any more."""
        self.lost, self.released = True, False

    def _end(self, sent: float) -> float:
        return math.inf if self.ttl is None else sent + self.ttl

    def _state(self) -> str:
        if self.released:
            return "was released"
        if self.lost:
            return "was lost"
        return "is held" if self.held else f"expired: its ttl of {self.ttl} seconds has passed"

    def __bool__(self) -> Literal[True]:
        return True

    def __str__(self) -> str:
        return f"The lease on {self.semaphore!r}"

    def __repr__(self) -> str:
        what = f"{self.semaphore!r} token={self.token} backend={self.backend!r}"
        return f"<Lease {what} {self._state()}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A lease can't be pickled: it is this process's. To check late writes elsewhere, "
            "send its token."
        )


if TYPE_CHECKING:

    def _lease_is_a_claim(lease: Lease) -> Claim:
        return lease


class Flow:
    """The leases that one thread acquired, by name, and the `with` blocks that it is in.

    It is found through a context variable. A context that is copied to another thread, or inherited
    by a forked child, brings along a flow that isn't theirs.
    """

    __slots__ = ("__weakref__", "entered", "identity", "leases", "put_off")

    everybodys: ClassVar["WeakValueDictionary[int, Flow]"] = WeakValueDictionary()

    def __init__(self) -> None:
        self.identity = _identity()
        self.everybodys[id(self)] = self
        self.leases: dict[tuple[str, str], Lease] = {}
        self.entered: list[tuple[object, Lease]] = []
        self.put_off: list[PutOffRelease] = []

    def remember(self, lease: Lease) -> None:
        """Let this lease be found by its name, in place of an earlier one that was lost."""
        self.leases[lease.backend, lease.semaphore] = lease

    def forget(self, lease: Lease) -> None:
        """Find this lease by its name no more."""
        if self.leases.get((lease.backend, lease.semaphore)) is lease:
            del self.leases[lease.backend, lease.semaphore]

    def at_work(self) -> list[Lease]:
        """Return the leases of its blocks, and those whose release waits for a transaction."""
        entered = [lease for _, lease in self.entered if not lease.released]
        waiting = [each.lease for each in self.put_off if each.guards]
        return [*dict.fromkeys(entered + waiting)]

    def leave(self, block: object) -> Lease:
        """Return the lease with which this thread entered the block last.

        Or another thread, which may have begun a generator that is closed in this one.
        """
        if lease := self._left(block):
            return lease
        for ref in self.everybodys.valuerefs():
            if (flow := ref()) and (lease := flow._left(block)):
                return lease
        raise RuntimeError("The block was left more often than it was entered.")

    def _left(self, block: object) -> Lease | None:
        for index in reversed(range(len(self.entered))):
            if self.entered[index][0] is block:
                return self.entered.pop(index)[1]
        return None


_flow: ContextVar[Flow | None] = ContextVar("django_distlock_flow", default=None)


def current_flow() -> Flow:
    """Return what the running thread acquired."""
    flow = _flow.get()
    if flow is None or flow.identity != _identity():
        flow = Flow()
        _flow.set(flow)
    return flow


def _identity() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()
