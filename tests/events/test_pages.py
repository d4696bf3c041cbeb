"""The history of a lock on its page in the admin: a picture of waits and holds, and a list."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from django.db import OperationalError
from django.template.loader import render_to_string
from django.test import override_settings

from django_distlock.events import pages
from django_distlock.events.history import PastEvent
from django_distlock.events.pages import Past, chart_of, describe_duration, past_of
from django_distlock.models import EVENT_KINDS, LockEvent
from django_distlock.records import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.once, pytest.mark.django_db]

SEMAPHORE = '<script>alert("1")</script>'
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def stores() -> Iterator[None]:
    """Keep the events of "memory", and none of "silent"."""
    memory = "django_distlock.backends.memory.MemoryBackend"
    stores = {
        "memory": {"BACKEND": memory, "OPTIONS": {"events": True}},
        "silent": {"BACKEND": memory},
    }
    with override_settings(DISTLOCK=stores):
        yield


def event(kind: EventKind, second: float, token: int | None = None, **values: Any) -> PastEvent:
    """Return an event so many seconds later."""
    known = {"holder": "web-1 pid 7", "waited": None, "held": None, "by": "", "reason": ""}
    at = NOW + timedelta(seconds=second)
    return PastEvent(kind, at, token, **{**known, **values}, word=str(EVENT_KINDS[kind.value]))


def seconds(number: float) -> timedelta:
    """Return a duration."""
    return timedelta(seconds=number)


def test_bars_show_how_long_each_waited_and_held() -> None:
    """On one scale, the newest on top; a grant and its end are one bar."""
    chart = chart_of(
        [
            event(EventKind.CONTENDED, 90, waited=seconds(5)),
            event(EventKind.ACQUIRED, 80, 3, waited=seconds(1)),
            event(EventKind.FORCE_RELEASED, 51, 2, holder="", by="ann"),
            event(EventKind.LOST, 50, 2, held=seconds(10)),
            event(EventKind.ACQUIRED, 40, 2, waited=seconds(0)),
            event(EventKind.RELEASED, 15, 1, held=seconds(15)),
            event(EventKind.ACQUIRED, 0, 1, waited=seconds(5)),
            event(EventKind.RELEASED, -1, 0, held=seconds(0.000001)),
        ]
    )
    assert chart is not None
    assert [(bar.kind, bar.waited, bar.held) for bar in chart.bars] == [
        ("contended", 250, 0),
        ("acquired", 50, 0),
        ("lost", 0, 500),
        ("released", 250, 750),
        ("released", 0, pages.NARROWEST),
    ]
    assert [bar.y for bar in chart.bars] == [0, 14, 28, 42, 56]
    assert chart.scale == "20.0 s"
    assert chart.bars[3].text == "waited 5.0 s, held 15.0 s"


def test_grants_without_tokens_are_joined_with_the_next_end_of_the_same_holder() -> None:
    """Memcached has none."""
    chart = chart_of(
        [
            event(EventKind.RELEASED, 3, held=seconds(2)),
            event(EventKind.ACQUIRED, 2, waited=seconds(1)),
            event(EventKind.RELEASED, 1, held=seconds(1)),
            event(EventKind.ACQUIRED, 0, waited=seconds(2)),
        ]
    )
    assert chart is not None
    assert [(bar.waited, bar.held) for bar in chart.bars] == [(333, 667), (667, 333)]


def test_nothing_is_drawn_of_nothing() -> None:
    """Neither of no events, nor of such that took no time."""
    assert chart_of([]) is None
    assert chart_of([event(EventKind.ACQUIRED, 0, 1, waited=seconds(0))]) is None


def test_picture_is_limited_and_so_is_the_list() -> None:
    """Whatever there is."""
    for number in range(150):
        LockEvent.objects.create(
            backend="memory", semaphore="a", kind="contended", at=NOW + seconds(number), waited=5
        )
    past = past_of("memory", "a")
    assert past is not None
    assert past.chart is not None
    assert (len(past.events), len(past.chart.bars)) == (100, pages.BARS)
    assert past.events[0].at == NOW + seconds(149)


@pytest.mark.parametrize(
    ("duration", "text"),
    [(0.0004, "0 ms"), (0.035, "35 ms"), (3.21, "3.2 s"), (3_900, "1h 5m"), (90, "1m 30s")],
)
def test_durations_are_short(duration: float, text: str) -> None:
    """As people read them."""
    assert describe_duration(seconds(duration)) == text


def test_page_escapes_what_it_shows_and_needs_no_inline_style_or_script() -> None:
    """So that a strict Content-Security-Policy passes; the picture has words for screen readers."""
    for kind, values in (
        ("acquired", {"token": 1234567, "waited": 1_000_000}),
        ("force_released", {"token": 1234567, "by": SEMAPHORE}),
        ("lost", {"token": 1234567, "held": 2_000_000, "reason": SEMAPHORE}),
    ):
        LockEvent.objects.create(
            backend="memory",
            semaphore=SEMAPHORE,
            kind=kind,
            at=NOW,
            holder="" if kind == "force_released" else SEMAPHORE,
            **values,
        )
    with override_settings(USE_THOUSAND_SEPARATOR=True):
        page = rendered(past_of("memory", SEMAPHORE))
    assert "<script" not in page
    assert "style=" not in page
    assert page.count("&lt;script&gt;") >= 3
    assert "token 1234567" in page
    [picture] = re.findall(r"<svg.*</svg>", page, re.DOTALL)
    svg = ElementTree.fromstring(picture)
    assert svg.get("viewBox") == "0 0 1000 14"
    assert svg.get("role") == "img"
    words = {each.get("id"): (each.text or "").strip() for each in svg.iter() if each.get("id")}
    assert [words[name] for name in str(svg.get("aria-labelledby")).split()] == [
        "Waits and holds",
        "One acquisition or refusal, which took 3.0 s.",
    ]
    bars = [(rect.get("class"), rect.get("x"), rect.get("width")) for rect in svg.iter("rect")]
    assert bars == [
        ("distlock-waited", "0", "333"),
        ("distlock-holding distlock-lost", "333", "667"),
    ]


@pytest.mark.parametrize("use_tz", [True, False])
def test_times_are_in_the_readers_zone(use_tz: bool) -> None:
    """As all others on the lock's page, with or without USE_TZ."""
    LockEvent.objects.create(
        backend="memory", semaphore="a", kind="released", at=NOW, holder="h", held=1_000_000
    )
    with override_settings(USE_TZ=use_tz, TIME_ZONE="Asia/Tokyo"):
        page = rendered(past_of("memory", "a"))
    assert re.findall(r"\d\d:00:00", page) == ["21:00:00"] * 3
    assert 'datetime="2026-11-30T21:00:00+09:00"' in page


def test_page_says_that_nothing_was_recorded() -> None:
    """A store without events has no history at all."""
    assert "Nothing has been recorded" in rendered(past_of("memory", "a"))
    assert past_of("silent", "a") is None


def test_page_says_that_events_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the page is shown all the same."""

    def fail(*arguments: Any) -> Any:
        raise OperationalError("no such table: distlock_lockevent")

    monkeypatch.setattr(pages, "history", fail)
    page = rendered(past_of("memory", "a"))
    assert 'role="alert"' in page
    assert "no such table" in page


def rendered(past: Past | None) -> str:
    """Return the part of the page."""
    assert past is not None
    return render_to_string("admin/distlock/lock/history.html", {"past": past})
