"""Spans of OpenTelemetry: one for waiting for a lock, one for holding it.

A span is made when it ends, with the times at which it began and ended. So none is left open by a
lease that is dropped, or by a process that forks. Until then only its beginning is kept.
"""

import time
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from opentelemetry.context import Context, get_current
from opentelemetry.trace import Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from django_distlock.lease import Lease

from .recorders import LockTelemetry, TemplateOf

SHORTEST_WAIT: Final = 0.01
"""Seconds: a grant that took less time has no span for waiting, which would clutter the trace.

Every refusal has one, and every span for holding has `distlock.waited`.
"""


class Beginning(NamedTuple):
    """The beginning of a span."""

    parent: Context
    """The context of the acquisition, with the span that was current there."""
    at: int
    """Nanoseconds since the epoch."""

    @classmethod
    def ago(cls, seconds: float) -> "Beginning":
        """Return a beginning this many seconds ago, in the current context."""
        return cls(get_current(), time.time_ns() - nanoseconds(seconds))


class LockSpans(LockTelemetry):
    """Turns signals into spans."""

    def __init__(self, tracer: Tracer, semaphores: bool, template_of: TemplateOf | None) -> None:
        super().__init__(template_of)
        self._tracer = tracer
        self._semaphores = semaphores
        # Weakly: a lease is renewed as long as anything refers to it.
        self._grants: WeakKeyDictionary[Lease, Beginning] = WeakKeyDictionary()

    def record_acquisition(self, lease: Lease, waited: float, template: str, **_: Any) -> None:
        """See lock_acquired."""
        self._grants[lease] = Beginning.ago(0)
        if waited >= SHORTEST_WAIT:
            self._add_wait("acquired", waited, template, lease.semaphore, lease.backend)

    def record_contention(
        self, semaphore: str, backend: str, waited: float, template: str, **_: Any
    ) -> None:
        """See lock_contended."""
        self._add_wait("contended", waited, template, semaphore, backend)

    def record_release(self, lease: Lease, held_for: float, template: str, **_: Any) -> None:
        """See lock_released."""
        self._add_hold("released", lease, held_for, template)

    def record_loss(
        self, lease: Lease, reason: str, held_for: float, template: str, **_: Any
    ) -> None:
        """See lock_lost."""
        self._add_hold("lost", lease, held_for, template, Status(StatusCode.ERROR, reason))

    def _add_wait(
        self, outcome: str, waited: float, template: str, semaphore: str, backend: str
    ) -> None:
        attributes = self._attributes(template, semaphore, backend, outcome)
        self._add("distlock.wait", Beginning.ago(waited), waited, attributes)

    def _add_hold(
        self,
        outcome: str,
        lease: Lease,
        held_for: float,
        template: str,
        status: Status | None = None,
    ) -> None:
        attributes = self._attributes(template, lease.semaphore, lease.backend, outcome)
        attributes["distlock.waited"] = lease.waited
        if lease.token is not None:
            attributes["distlock.token"] = lease.token
        # No grant is known of a lease that was acquired before this was switched on, or that
        # continues an earlier one of its transaction.
        begin = self._grants.pop(lease, None) or Beginning.ago(held_for)
        self._add("distlock.hold", begin, held_for, attributes, status)

    def _attributes(
        self, template: str, semaphore: str, backend: str, outcome: str
    ) -> dict[str, AttributeValue]:
        attributes: dict[str, AttributeValue] = {
            "distlock.template": self.find_template(template, semaphore),
            "distlock.backend": backend,
            "distlock.outcome": outcome,
        }
        if self._semaphores:
            attributes["distlock.semaphore"] = semaphore
        return attributes

    def _add(
        self,
        name: str,
        begin: Beginning,
        seconds: float,
        attributes: dict[str, AttributeValue],
        status: Status | None = None,
    ) -> None:
        """Make a span that has ended."""
        template = attributes["distlock.template"]
        span = self._tracer.start_span(
            f"{name} {template!s}" if template else name,
            begin.parent,
            attributes=attributes,
            start_time=begin.at,
        )
        if status is not None:
            span.set_status(status)
        span.end(begin.at + nanoseconds(seconds))


def nanoseconds(seconds: float) -> int:
    """Return seconds as OpenTelemetry counts time."""
    return int(seconds * 1_000_000_000)
