"""Which thread or task acquired which leases, and which blocks it is in."""

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

from asgiref.sync import SyncToAsync

from .borders import Worker, current_worker

if TYPE_CHECKING:
    from .leases import Lease
    from .put_off import PutOffRelease


class Flow:
    """The leases that one thread or task acquired, by name, and the blocks that it is in.

    It ends with its thread or task, so leases refer to it weakly. What a block holds doesn't end
    with it: a generator may go on in another task.
    """

    __slots__ = (
        "__weakref__",
        "_request",
        "_worker",
        "begun",
        "entered",
        "leases",
        "pid",
        "put_off",
        "ref",
    )

    def __init__(self, worker: Worker) -> None:
        self.pid = worker.pid
        self.ref = ref(self)
        self.leases: dict[tuple[str, str], Lease] = {}
        self.entered: list[Lease] = []
        self.put_off: list[PutOffRelease] = []
        self.begun: list[dict[str, int]] = []
        """For each request or task under way, the owners that were there before, and reentries."""
        self._worker = ref(worker)
        request = asgi_request()
        self._request = None if request is None else ref(request)

    def remember(self, lease: "Lease") -> None:
        """Let this lease be found by its name, in place of an earlier one, which is lost then."""
        name = lease.backend, lease.semaphore
        if earlier := self.leases.get(name):
            earlier.lose()
        self.leases[name] = lease
        if flows := self._with_leases():
            flows.add(self)

    def forget(self, lease: "Lease") -> None:
        """Find this lease by its name no more."""
        if self.leases.get((lease.backend, lease.semaphore)) is lease:
            del self.leases[lease.backend, lease.semaphore]
            if not self.leases and (flows := self._with_leases()):
                flows.discard(self)

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
        entered = [lease for lease in self.entered if not lease.released]
        waiting = [each.lease for each in self.put_off if each.guards]
        return [*dict.fromkeys(entered + waiting)]

    def is_in_block_of(self, lease: "Lease") -> bool:
        """Tell whether it is in a block that has this lease."""
        return any(entered is lease for entered in self.entered)

    def enter(self, block: object, lease: "Lease") -> None:
        """Take note of a block that is entered with this lease."""
        self.entered.append(lease)
        _entrances.setdefault(block, []).append((self.ref, lease))

    def leave(self, block: object) -> "Lease":
        """Return the lease with which this thread or task entered the block last.

        Or another one, which may have begun a generator that is closed in this one.
        """
        entrances = _entrances.get(block, [])
        mine = [each for each in entrances if each[0] is self.ref]
        of_ended = [each for each in entrances if each[0]() is None]
        for candidates in (mine, of_ended, entrances):
            if candidates:
                entrances.remove(entrance := candidates[-1])
                break
        else:
            raise RuntimeError("The block was left more often than it was entered.")
        weakly, lease = entrance
        if flow := weakly():
            flow.entered.remove(lease)
        return lease


_entrances: WeakKeyDictionary[object, list[tuple[ref[Flow], "Lease"]]] = WeakKeyDictionary()


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
