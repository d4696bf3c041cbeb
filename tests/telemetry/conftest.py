"""OpenTelemetry's SDK in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.telemetry.traces import Traces


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    """Collect the spans of locks. None is for a wait because the machine is slow."""
    pytest.importorskip("opentelemetry.sdk")
    from django_distlock.telemetry import spans
    from django_distlock.telemetry.opentelemetry import instrument, uninstrument
    from tests.telemetry.traces import Traces

    monkeypatch.setattr(spans, "SHORTEST_WAIT", 60)
    collected = Traces()
    instrument(tracer_provider=collected.provider)
    yield collected
    uninstrument()
