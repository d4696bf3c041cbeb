"""Which thread or task acquired which leases, and which blocks it is in."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from asgiref.sync import SyncToAsync

from .borders import current_party, has_ended

if TYPE_CHECKING:
    from .leases import Lease
    from .put_off import PutOffRelease


class Flow:
    """The leases that one thread or task acquired, by name, and the blocks that it is in.

    It is found through a context variable. A context that is copied to another thread, or inherited
    by a task's or a process's child, brings along a flow that isn't theirs. It ends with its thread
    or task, so leases refer to it weakly.
    """

    __slots__ = ("__weakref__", "begun", "entered", "leases", "party", "put_off", "ref")

    everybodys: ClassVar["WeakValueDictionary[int, Flow]"] = WeakValueDictionary()

    def __init__(self) -> None:
        self.party = current_party()
        self.everybodys[id(self)] = self
        self.ref = ref(self)
        self.leases: dict[tuple[str, str], Lease] = {}
        self.entered: list[tuple[object, Lease]] = []
        self.put_off: list[PutOffRelease] = []
        self.begun: list[dict[str, int]] = []
        """For each request or task under way, the owners that were there before, and reentries."""
        if (request := asgi_request()) is not None:
            flows = _of_requests.setdefault(request, [])
            if flows is not None:
                flows.append(self)

    def remember(self, lease: "Lease") -> None:
        """Let this lease be found by its name, in place of an earlier one, which is lost then."""
        name = lease.backend, lease.semaphore
        if earlier := self.leases.get(name):
            earlier.lose()
        self.leases[name] = lease

    def forget(self, lease: "Lease") -> None:
        """Find this lease by its name no more."""
        if self.leases.get((lease.backend, lease.semaphore)) is lease:
            del self.leases[lease.backend, lease.semaphore]

    def at_work(self) -> list["Lease"]:
        """Return the leases of its blocks, and those whose release waits for a transaction."""
        entered = [lease for _, lease in self.entered if not lease.released]
        waiting = [each.lease for each in self.put_off if each.guards]
        return [*dict.fromkeys(entered + waiting)]

    def is_in_block_of(self, lease: "Lease") -> bool:
        """Tell whether it is in a block that has this lease."""
        return any(entered is lease for _, entered in self.entered)

    def leave(self, block: object) -> "Lease":
        """Return the lease with which this thread or task entered the block last.

        Or another one, which may have begun a generator that is closed in this one.
        """
        if lease := self._left(block):
            return lease
        for weakly in self.everybodys.valuerefs():
            if (flow := weakly()) and (lease := flow._left(block)):
                return lease
        raise RuntimeError("The block was left more often than it was entered.")

    def _left(self, block: object) -> "Lease | None":
        for index in reversed(range(len(self.entered))):
            if self.entered[index][0] is block:
                return self.entered.pop(index)[1]
        return None


_of_requests: WeakKeyDictionary[object, list[Flow] | None] = WeakKeyDictionary()
"""For each request under ASGI its tasks' flows; None when it has ended, though tasks may go on."""
_flow: ContextVar[Flow | None] = ContextVar("django_distlock_flow", default=None)


def current_flow() -> Flow:
    """Return what was acquired by whom the running code works for."""
    flow = _flow.get()
    if flow is None or flow.party != current_party():
        flow = Flow()
        _flow.set(flow)
    return flow


def asgi_request() -> object | None:
    """Return what Django keeps for as long as it handles this request, if that is by ASGI."""
    return SyncToAsync.thread_sensitive_context.get(None)


def end_asgi_request(request: object) -> list[Flow]:
    """Return this task's flow, and those of the request's tasks that have ended.

    Before 6.1, Django calls a view in a child task of the one that begins and ends the request.
    """
    here = current_party()
    flows = _of_requests.get(request) or []
    _of_requests[request] = None
    return [flow for flow in flows if flow.party == here or has_ended(flow.party)]
