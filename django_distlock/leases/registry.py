"""Which thread or task acquired which leases, and which blocks it is in."""

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

from django_distlock.concurrency.callers import Caller, current_caller
from django_distlock.runtime import current_asgi_request

if TYPE_CHECKING:
    from .deferred_release import DeferredRelease
    from .lease import Lease


class BlockEntry:
    """A block's entry: who entered it, with which lease, and how often that was reentered."""

    __slots__ = ("__weakref__", "lease", "reentries", "registry")

    def __init__(self, registry: "ref[LeaseRegistry]", lease: "Lease") -> None:
        self.registry = registry
        self.lease = lease
        self.reentries = lease.reentries

    def exit(self) -> None:
        """Be in the block no more, if it still is."""
        if registry := self.registry():
            for weakly in registry.block_entries:
                if weakly() is self:
                    registry.block_entries.remove(weakly)
                    return


class LeaseRegistry:
    """The leases that one thread or task acquired, by name, and the blocks that it is in.

    It refers to a lease weakly, since a lease is renewed as long as somebody refers to it: so that
    of a block ends with the block, in whatever way that is interrupted. What is acquired by
    acquire_lock(), whose caller may know it by its name only, is kept until it is released.

    It ends with its thread or task, so leases refer to it weakly. What a block holds doesn't end
    with it: a generator may go on in another task.
    """

    __slots__ = (
        "__weakref__",
        "_caller",
        "_leases",
        "_request",
        "_retained",
        "_unreleased",
        "block_entries",
        "deferred_releases",
        "held_at_start",
        "pid",
        "ref",
    )

    def __init__(self, caller: Caller) -> None:
        self.pid = caller.pid
        self.ref = ref(self)
        self._leases: dict[tuple[str, str], ref[Lease]] = {}
        self._retained: dict[tuple[str, str], Lease] = {}
        self._unreleased: dict[tuple[str, str], Lease] = {}
        self.block_entries: list[ref[BlockEntry]] = []
        self.deferred_releases: list[DeferredRelease] = []
        self.held_at_start: list[dict[str, int]] = []
        """For each request or task under way, the owners that were there before, and reentries."""
        self._caller = ref(caller)
        request = current_asgi_request()
        self._request = None if request is None else ref(request)

    def find(self, backend: str, semaphore: str) -> "Lease | None":
        """Return the lease that was acquired here by this name."""
        weakly = self._leases.get((backend, semaphore))
        return None if weakly is None else weakly()

    def leases(self) -> "list[Lease]":
        """Return the leases that were acquired here."""
        return [lease for weakly in self._leases.values() if (lease := weakly())]

    def add(self, lease: "Lease") -> None:
        """Let this lease be found by its name, in place of an earlier one, which is lost then."""
        name = lease.backend, lease.semaphore
        if earlier := self.find(*name):
            earlier.mark_lost()
        self._leases[name] = ref(lease)
        if registries := self._with_leases():
            registries.add(self)

    def retain(self, lease: "Lease") -> None:
        """Refer to it until it is released: its caller may not."""
        self._retained[lease.backend, lease.semaphore] = lease

    def retained(self) -> "list[Lease]":
        """Return the leases that were acquired by name, and not released yet."""
        return list(self._retained.values())

    def remove(self, lease: "Lease") -> None:
        """Find this lease by its name no more."""
        name = lease.backend, lease.semaphore
        weakly = self._leases.get(name)
        if weakly is not None and weakly() is lease:
            del self._leases[name]
            if not self._leases and (registries := self._with_leases()):
                registries.discard(self)
        if self._retained.get(name) is lease:
            del self._retained[name]
        if self._unreleased.get(name) is lease:
            del self._unreleased[name]

    def add_unreleased(self, lease: "Lease") -> None:
        """Remember a lease whose release failed: it is nobody's, but may be released yet."""
        self.remove(lease)
        for name, other in list(self._unreleased.items()):
            if not other.remaining:
                self._unreleased.pop(name, None)
        self._unreleased[lease.backend, lease.semaphore] = lease

    def find_unreleased(self, backend: str, semaphore: str) -> "Lease | None":
        """Return the lease by this name that was left behind and has not ended."""
        lease = self._unreleased.get((backend, semaphore)) if self._unreleased else None
        return lease if lease is not None and lease.remaining else None

    def _with_leases(self) -> "RequestRegistries | None":
        """Return which registries of the same request have leases, if it is one under ASGI."""
        request = self._request and self._request()
        return None if request is None else _of_requests.setdefault(request, RequestRegistries())

    def belongs_to(self, caller: Caller) -> bool:
        """Tell whether it is this caller's, or of one that has ended."""
        own = self._caller()
        return own is None or own is caller or own.has_ended()

    def guarding_leases(self) -> list["Lease"]:
        """Return the leases of its blocks, and those whose release waits for a transaction."""
        if not (self.block_entries or self.deferred_releases):
            return []
        blocks = [entry.lease for weakly in self.block_entries if (entry := weakly())]
        entered = [each for each in blocks if not (each.released or each.is_unreleased)]
        waiting = [each.lease for each in self.deferred_releases if each.guards]
        return [*dict.fromkeys(entered + waiting)]

    def is_in_block_with(self, lease: "Lease") -> bool:
        """Tell whether it is in a block that has this lease."""
        entries = (weakly() for weakly in self.block_entries)
        return any(entry is not None and entry.lease is lease for entry in entries)

    def enter_block(self, lease: "Lease") -> BlockEntry:
        """Be in a block that has this lease, as long as somebody refers to the entry."""
        entry = BlockEntry(self.ref, lease)
        self.block_entries.append(ref(entry, self.block_entries.remove))
        return entry

    def entry_to_exit(self, entries: list[BlockEntry]) -> BlockEntry:
        """Return how this thread or task entered a block last, of all its entries.

        Or how another one did, which may have begun a generator that is closed in this one.
        """
        mine = [each for each in entries if each.registry is self.ref]
        of_ended = [each for each in entries if each.registry() is None]
        for candidates in (mine, of_ended, entries):
            if candidates:
                return candidates[-1]
        raise RuntimeError("The block was left more often than it was entered.")


class RequestRegistries(set[LeaseRegistry]):
    """The registries of one request that have leases; none any more when it has ended."""

    ended = False

    def __bool__(self) -> bool:
        return not self.ended

    def end(self, caller: Caller) -> list[LeaseRegistry]:
        """Return those of this caller and of tasks that have ended; others keep what they have.

        Before 6.1, Django calls a view in a child task of the one that begins and ends the request.
        """
        registries = [  # from a copy: others add to it
            registry for registry in list(self) if registry.belongs_to(caller)
        ]
        self.ended = True
        self.clear()
        return registries


_of_requests: WeakKeyDictionary[object, RequestRegistries] = WeakKeyDictionary()


def current_registry() -> LeaseRegistry:
    """Return what was acquired by whom the running code works for."""
    caller = current_caller()
    registry: LeaseRegistry | None = caller.registry
    if registry is None:
        registry = caller.registry = LeaseRegistry(caller)
    return registry


def registries_of_ended_request(request: object) -> list[LeaseRegistry]:
    """Return the registries whose leases end with the request."""
    return _of_requests.setdefault(request, RequestRegistries()).end(current_caller())
