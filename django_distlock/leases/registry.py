"""The registry of each thread or task: its leases by name, and the blocks that it is in."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from weakref import WeakKeyDictionary, ref

from django_distlock.concurrency.callers import Caller, current_caller
from django_distlock.runtime import current_asgi_request

from .deferred_release import DeferredRelease
from .outcomes import mark_lost
from .state import LeaseState


@dataclass(eq=False, slots=True, weakref_slot=True)
class Scope:
    """A request, or a task of a task queue, from its start to its end."""

    name: str
    """The task's name; empty for a request."""
    key: object
    """What identifies it at its end; None for a request."""
    earlier: Mapping[str, int]
    """The owners of leases that were held when it began, and their reentries."""
    outer: "Scope | None"
    """The scope in which it began."""


_innermost: ContextVar[Scope | None] = ContextVar("django_distlock_scope", default=None)
"""The innermost scope. Asyncio's tasks inherit it."""


class BlockEntry:
    """One entry into a block: its thread's or task's registry, its lease, and the reentries."""

    __slots__ = ("__weakref__", "lease", "reentries", "registry")

    def __init__(self, registry: "ref[LeaseRegistry]", lease: LeaseState) -> None:
        self.registry = registry
        self.lease = lease
        self.reentries = lease.reentries

    def exit(self) -> None:
        """Remove this entry from its registry, if it is there."""
        if registry := self.registry():
            for entry_ref in registry.block_entries:
                if entry_ref() is self:
                    registry.block_entries.remove(entry_ref)
                    return


class LeaseRegistry:
    """The leases that one thread or task acquired, by name, and the blocks that it is in.

    It refers to leases weakly, since a lease is renewed as long as anything refers to it: the lease
    of a block ends with the block, however that is interrupted. The leases of acquire_lock() are
    retained until they are released, since the caller may keep nothing but the name.

    The registry ends with its thread or task, so leases refer to it weakly. The lease of a block
    does not end with it: a generator may go on in another task.
    """

    __slots__ = (
        "__weakref__",
        "_caller",
        "_leases",
        "_retained",
        "_scope",
        "_unreleased",
        "block_entries",
        "deferred_releases",
        "pid",
        "ref",
        "scopes",
    )

    def __init__(self, caller: Caller) -> None:
        self.pid = caller.pid
        self.ref = ref(self)
        self._leases: dict[tuple[str, str], ref[LeaseState]] = {}
        self._retained: dict[tuple[str, str], LeaseState] = {}
        self._unreleased: dict[tuple[str, str], LeaseState] = {}
        self.block_entries: list[ref[BlockEntry]] = []
        self.deferred_releases: list[DeferredRelease] = []
        self.scopes: list[Scope] = []
        """The requests and tasks that began in this thread or task, the outermost first."""
        self._caller = ref(caller)
        scope = current_asgi_request() or (caller.task and _innermost.get())
        self._scope = None if scope is None else ref(scope)

    def running_name(self) -> str | None:
        """Return the name of the task that it works for; empty in a request, None elsewhere."""
        if self.scopes:
            return self.scopes[-1].name
        scope = self._scope and self._scope()
        if isinstance(scope, Scope):
            return scope.name
        return None if self._scope is None else ""

    def start(self, name: str, key: object) -> None:
        """Record the start of a request or task."""
        earlier: dict[str, int] = {lease.owner: lease.reentries for lease in self.leases()}
        scope = Scope(name, key, earlier, _innermost.get())
        self.scopes.append(scope)
        _innermost.set(scope)

    def end(self, key: object) -> Scope | None:
        """Remove the latest request or task of this key, and those inside that had no end."""
        for index in reversed(range(len(self.scopes))):
            ended = self.scopes[index]
            if ended.key == key:
                del self.scopes[index:]
                _innermost.set(ended.outer)
                return ended
        return None

    def find(self, backend: str, semaphore: str) -> LeaseState | None:
        """Return the lease of this name."""
        lease_ref = self._leases.get((backend, semaphore))
        return None if lease_ref is None else lease_ref()

    def leases(self) -> list[LeaseState]:
        """Return all leases that are not released."""
        return [lease for lease_ref in self._leases.values() if (lease := lease_ref())]

    def add(self, lease: LeaseState) -> None:
        """Add the lease by its name. An earlier one of that name must be lost: mark it so."""
        name = lease.backend, lease.semaphore
        if earlier := self.find(*name):
            mark_lost(earlier)
        self._leases[name] = ref(lease)
        if registries := self._of_same_scope():
            registries.add(self)

    def retain(self, lease: LeaseState) -> None:
        """Refer to the lease until it is released: its caller may not."""
        self._retained[lease.backend, lease.semaphore] = lease

    def retained(self) -> list[LeaseState]:
        """Return the leases that are retained."""
        return list(self._retained.values())

    def remove(self, lease: LeaseState) -> None:
        """Remove the lease, if it is here."""
        name = lease.backend, lease.semaphore
        lease_ref = self._leases.get(name)
        if lease_ref is not None and lease_ref() is lease:
            del self._leases[name]
            if not self._leases and (registries := self._of_same_scope()):
                registries.discard(self)
        if self._retained.get(name) is lease:
            del self._retained[name]
        if self._unreleased.get(name) is lease:
            del self._unreleased[name]

    def add_unreleased(self, lease: LeaseState) -> None:
        """Move the lease to the ones whose release failed. It may be released by its name yet."""
        self.remove(lease)
        for name, other in list(self._unreleased.items()):
            if not other.remaining:
                self._unreleased.pop(name, None)
        self._unreleased[lease.backend, lease.semaphore] = lease

    def find_unreleased(self, backend: str, semaphore: str) -> LeaseState | None:
        """Return the lease of this name whose release failed, if it has not expired."""
        lease = self._unreleased.get((backend, semaphore)) if self._unreleased else None
        return lease if lease is not None and lease.remaining else None

    def _of_same_scope(self) -> "Registries | None":
        """Return the registries of the same request or task that have leases."""
        scope = self._scope and self._scope()
        return None if scope is None else _registries.setdefault(scope, Registries())

    def belongs_to(self, caller: Caller) -> bool:
        """Tell whether this is the caller's registry, or that of one that has ended."""
        own = self._caller()
        return own is None or own is caller or own.has_ended()

    def guarding_leases(self) -> list[LeaseState]:
        """Return the leases that a commit depends on: of its blocks, and of deferred releases."""
        if not (self.block_entries or self.deferred_releases):
            return []
        of_blocks = [
            entry.lease
            for entry in self._entries()
            if not (entry.lease.released or entry.lease.is_unreleased)
        ]
        deferred = [each.lease for each in self.deferred_releases if each.guards]
        return [*dict.fromkeys(of_blocks + deferred)]

    def guarding_releases(self, backend: str, semaphore: str) -> list[DeferredRelease]:
        """Return the deferred releases of this name that commits depend on; complete the others."""
        matching = [
            each
            for each in self.deferred_releases
            if each.lease.backend == backend and each.lease.semaphore == semaphore
        ]
        for each in matching:
            if each.ended:
                each.complete()  # the finalizer that noticed the end could not
        return [each for each in matching if each.guards]

    def _entries(self) -> list[BlockEntry]:
        return [entry for entry_ref in self.block_entries if (entry := entry_ref())]

    def is_in_block_with(self, lease: LeaseState) -> bool:
        """Tell whether the thread or task is in a block that has this lease."""
        return any(entry.lease is lease for entry in self._entries())

    def enter_block(self, lease: LeaseState) -> BlockEntry:
        """Return an entry into a block. It counts as long as the caller refers to it."""
        entry = BlockEntry(self.ref, lease)
        self.block_entries.append(ref(entry, self.block_entries.remove))
        return entry

    def entry_to_exit(self, entries: list[BlockEntry]) -> BlockEntry:
        """Return the last of a block's entries that this thread or task made.

        Else, that of another one: a generator may have been started there and be closed here.
        """
        own = [each for each in entries if each.registry is self.ref]
        of_ended = [each for each in entries if each.registry() is None]
        for candidates in (own, of_ended, entries):
            if candidates:
                return candidates[-1]
        raise RuntimeError("The block was left more often than it was entered: use `with`.")


class Registries(set[LeaseRegistry]):
    """The registries of one request or task that have leases. It is false when that has ended.

    A request by ASGI has several, and so has a task that runs an event loop.
    """

    ended = False

    def __bool__(self) -> bool:
        return not self.ended

    def end(self, caller: Caller) -> list[LeaseRegistry]:
        """Return those of this caller, and of asyncio's tasks that have ended. Others keep theirs.

        Before 6.1, Django calls a view in a child task of the one that begins and ends the request.
        """
        copy = list(self)  # other threads add to it
        registries = [registry for registry in copy if registry.belongs_to(caller)]
        self.ended = True
        self.clear()
        return registries


_registries: WeakKeyDictionary[object, Registries] = WeakKeyDictionary()
"""Those of each ASGI request and each task."""


def current_registry() -> LeaseRegistry:
    """Return the lease registry of the current thread or task."""
    caller = current_caller()
    registry: LeaseRegistry | None = caller.registry
    if registry is None:
        registry = caller.registry = LeaseRegistry(caller)
    return registry


def end_scope(scope: object) -> list[LeaseRegistry]:
    """Return the registries whose leases end with this ASGI request or task."""
    return _registries.setdefault(scope, Registries()).end(current_caller())
