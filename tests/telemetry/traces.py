"""The spans that OpenTelemetry's SDK made, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Span


class Traces:
    """A provider of tracers, and the spans that were made."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.site = self.provider.get_tracer("site")
        """The tracer of the site's own code."""

    @property
    def spans(self) -> list[ReadableSpan]:
        """Return the spans of locks, in the order in which they ended."""
        found = self._exporter.get_finished_spans()
        return [span for span in found if span.name.startswith("distlock.")]

    @property
    def names(self) -> list[str]:
        """Return their names."""
        return [span.name for span in self.spans]

    def are_below(self, parent: Span) -> bool:
        """Return whether all spans of locks are children of this one."""
        context = parent.get_span_context()
        return all(
            span.parent is not None
            and (span.parent.trace_id, span.parent.span_id) == (context.trace_id, context.span_id)
            for span in self.spans
        )
