"""Which thread or task acquired which leases, and which blocks it is in."""

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

from asgiref.sync import SyncToAsync

from django_distlock.concurrency.callers import Worker, current_worker

if TYPE_CHECKING:
    from .deferred_release import PutOffRelease
    from .lease import Lease


class Entrance:
    """A block's entrance: who entered it, with which lease, and how often that was reentered."""

    __slots__ = ("__weakref__", "flow", "lease", "reentries")

    def __init__(self, flow: "ref[Flow]", lease: "Lease") -> None:
        self.flow = flow
        self.lease = lease
        self.reentries = lease.reentries

    def end(self) -> None:
        """Be in the block no more, if it still is."""
        if flow := self.flow():
            for weakly in flow.entered:
                if weakly() is self:
                    flow.entered.remove(weakly)
                    return


class Flow:
    """The leases that one thread or task acquired, by name, and the blocks that it is in.

    It refers to a lease weakly, since a lease is renewed as long as somebody refers to it: so that
    of a block ends with the block, in whatever way that is interrupted. What is acquired by
    acquire_lock(), whose caller may know it by its name only, is kept until it is released.

    It ends with its thread or task, so leases refer to it weakly. What a block holds doesn't end
    with it: a generator may go on in another task.
    """

    __slots__ = (
        "__weakref__",
        "_kept",
        "_leases",
        "_left_behind",
        "_request",
        "_worker",
        "begun",
        "entered",
        "pid",
        "put_off",
        "ref",
    )

    def __init__(self, worker: Worker) -> None:
        self.pid = worker.pid
        self.ref = ref(self)
        self._leases: dict[tuple[str, str], ref[Lease]] = {}
        self._kept: dict[tuple[str, str], Lease] = {}
        self._left_behind: dict[tuple[str, str], Lease] = {}
        self.entered: list[ref[Entrance]] = []
        self.put_off: list[PutOffRelease] = []
        self.begun: list[dict[str, int]] = []
        """For each request or task under way, the owners that were there before, and reentries."""
        self._worker = ref(worker)
        request = asgi_request()
        self._request = None if request is None else ref(request)

    def find(self, backend: str, semaphore: str) -> "Lease | None":
        """Return the lease that was acquired here by this name."""
        weakly = self._leases.get((backend, semaphore))
        return None if weakly is None else weakly()

    def all(self) -> "list[Lease]":
        """Return the leases that were acquired here."""
        return [lease for weakly in self._leases.values() if (lease := weakly())]

    def remember(self, lease: "Lease") -> None:
        """Let this lease be found by its name, in place of an earlier one, which is lost then."""
        name = lease.backend, lease.semaphore
        if earlier := self.find(*name):
            earlier.lose()
        self._leases[name] = ref(lease)
        if flows := self._with_leases():
            flows.add(self)

    def keep(self, lease: "Lease") -> None:
        """Refer to it until it is released: its caller may not."""
        self._kept[lease.backend, lease.semaphore] = lease

    def kept(self) -> "list[Lease]":
        """Return the leases that were acquired by name, and not released yet."""
        return list(self._kept.values())

    def forget(self, lease: "Lease") -> None:
        """Find this lease by its name no more."""
        name = lease.backend, lease.semaphore
        weakly = self._leases.get(name)
        if weakly is not None and weakly() is lease:
            del self._leases[name]
            if not self._leases and (flows := self._with_leases()):
                flows.discard(self)
        if self._kept.get(name) is lease:
            del self._kept[name]
        if self._left_behind.get(name) is lease:
            del self._left_behind[name]

    def leave_behind(self, lease: "Lease") -> None:
        """Remember a lease whose release failed: it is nobody's, but may be released yet."""
        self.forget(lease)
        for name, other in list(self._left_behind.items()):
            if not other.remaining:
                self._left_behind.pop(name, None)
        self._left_behind[lease.backend, lease.semaphore] = lease

    def left_behind(self, backend: str, semaphore: str) -> "Lease | None":
        """Return the lease by this name that was left behind and has not ended."""
        lease = self._left_behind.get((backend, semaphore)) if self._left_behind else None
        return lease if lease is not None and lease.remaining else None

    def _with_leases(self) -> "RequestFlows | None":
        """Return which flows of the same request have leases, if it is one under ASGI."""
        request = self._request and self._request()
        return None if request is None else _of_requests.setdefault(request, RequestFlows())

    def belongs_to(self, worker: Worker) -> bool:
        """Tell whether it is this worker's, or of one that has ended."""
        own = self._worker()
        return own is None or own is worker or own.has_ended()

    def at_work(self) -> list["Lease"]:
        """Return the leases of its blocks, and those whose release waits for a transaction."""
        if not (self.entered or self.put_off):
            return []
        blocks = [entrance.lease for weakly in self.entered if (entrance := weakly())]
        entered = [each for each in blocks if not (each.released or each.is_left_behind)]
        waiting = [each.lease for each in self.put_off if each.guards]
        return [*dict.fromkeys(entered + waiting)]

    def is_in_block_of(self, lease: "Lease") -> bool:
        """Tell whether it is in a block that has this lease."""
        entrances = (weakly() for weakly in self.entered)
        return any(entrance is not None and entrance.lease is lease for entrance in entrances)

    def enter(self, lease: "Lease") -> Entrance:
        """Be in a block that has this lease, as long as somebody refers to the entrance."""
        entrance = Entrance(self.ref, lease)
        self.entered.append(ref(entrance, self.entered.remove))
        return entrance

    def entrance(self, entrances: list[Entrance]) -> Entrance:
        """Return how this thread or task entered a block last, of all its entrances.

        Or how another one did, which may have begun a generator that is closed in this one.
        """
        mine = [each for each in entrances if each.flow is self.ref]
        of_ended = [each for each in entrances if each.flow() is None]
        for candidates in (mine, of_ended, entrances):
            if candidates:
                return candidates[-1]
        raise RuntimeError("The block was left more often than it was entered.")


class RequestFlows(set[Flow]):
    """The flows of one request that have leases; none any more when it has ended."""

    ended = False

    def __bool__(self) -> bool:
        return not self.ended

    def end(self, worker: Worker) -> list[Flow]:
        """Return those of this worker and of tasks that have ended; others keep what they have.

        Before 6.1, Django calls a view in a child task of the one that begins and ends the request.
        """
        flows = [flow for flow in list(self) if flow.belongs_to(worker)]  # a copy: others add to it
        self.ended = True
        self.clear()
        return flows


_of_requests: WeakKeyDictionary[object, RequestFlows] = WeakKeyDictionary()


def current_flow() -> Flow:
    """Return what was acquired by whom the running code works for."""
    worker = current_worker()
    flow: Flow | None = worker.flow
    if flow is None:
        flow = worker.flow = Flow(worker)
    return flow


def asgi_request() -> object | None:
    """Return what Django keeps for as long as it handles this request, if that is by ASGI."""
    return SyncToAsync.thread_sensitive_context.get(None)


def end_asgi_request(request: object) -> list[Flow]:
    """Return the flows whose leases end with the request."""
    return _of_requests.setdefault(request, RequestFlows()).end(current_worker())
