"""The renewal of many leases: in one round trip for each server."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, Final

from django_distlock import clocks
from django_distlock.backends.batches import BatchedRenewals
from django_distlock.backends.sockets.calls import BLOCKING
from django_distlock.backends.sockets.connections import ServerError
from django_distlock.backends.sync_driver import run_sync
from django_distlock.backends.time_budget import Budget
from django_distlock.exceptions import LockBackendUnavailable
from django_distlock.records import Claim, Renewal

from .keys import KeySpace
from .messages import read_renewals, renew_call
from .nodes import NOT_NOW, Node
from .scripts import Call
from .servers import Servers, call_at_node

BATCH: Final = 500
"""How many leases a script renews, which takes a server one to two milliseconds."""

Batch = list[Claim]
Answers = Iterator[tuple[Batch, Any]]
"""Batches of leases, each with a server's answer, or the reason why there is none."""


class Renewer:
    """Renews the leases of a store."""

    def __init__(self, servers: Servers, keys: KeySpace) -> None:
        self._servers = servers
        self._keys = keys

    def renew(self, leases: Sequence[Claim], budget: Budget) -> dict[str, Renewal]:
        """Renew all leases.

        Nodes that were silent last time share one timeout, and come after the others.
        """
        renewals = BatchedRenewals()
        by_node = self.batches_by_node(leases)
        share = budget.seconds / max(1, sum(node.silent for node in by_node))
        for node in sorted(by_node, key=attrgetter("silent")):
            deadline = budget.deadline()
            if node.silent:
                deadline = min(deadline, clocks.monotonic() + share)
            for batch, answer in self._renew_at(node, by_node[node], deadline):
                if isinstance(answer, LockBackendUnavailable):
                    renewals.add_failed(batch, answer)
                else:
                    renewals.add(read_renewals(batch, answer))
        return renewals.result()

    def batches_by_node(self, leases: Sequence[Claim]) -> dict[Node, list[Batch]]:
        """Group leases by what one script may be given: keys of the same slot, in a cluster."""
        together = defaultdict[tuple[Node, int], Batch](list)
        for lease in leases:
            key = self._keys.lock(lease.semaphore)
            together[self._servers.of(key), self._servers.slot(key)].append(lease)
        batches = defaultdict[Node, list[Batch]](list)
        for (node, _), claims in together.items():
            batches[node] += [claims[at : at + BATCH] for at in range(0, len(claims), BATCH)]
        return batches

    def call_for(self, batch: Batch) -> Call:
        """Return the script's call that renews a batch."""
        return renew_call([self._keys.lock(lease.semaphore) for lease in batch], batch)

    def _renew_at(self, node: Node, batches: list[Batch], deadline: float) -> Answers:
        """Renew all batches in one round trip, and once more those that the node refuses."""
        commands = [self.call_for(batch).command() for batch in batches]
        try:
            answers = node.ask_all(commands, deadline)
            node.silent = False
        except LockBackendUnavailable as error:
            node.silent = True
            self._servers.suspect()
            yield from ((batch, error) for batch in batches)
            return
        for batch, answer in zip(batches, answers, strict=True):
            if isinstance(answer, ServerError):
                yield from self._renew_again(node, batch, deadline)
            else:
                yield batch, answer

    def _renew_again(self, node: Node, batch: Batch, deadline: float) -> Answers:
        """Renew a refused batch: another node may have it now; else each lease by itself."""
        try:
            call = self.call_for(batch)
            yield batch, run_sync(call_at_node(BLOCKING, self._servers, call, deadline))
        except LockBackendUnavailable as error:
            refusal = error.__cause__
            if not isinstance(refusal, ServerError) or refusal.code in NOT_NOW or len(batch) == 1:
                yield batch, error
                return
            if refusal.code == "CROSSSLOT":
                self._servers.group_by_slot()
            yield from self._renew_at(node, [[lease] for lease in batch], deadline)
