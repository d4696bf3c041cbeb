"""The history of a lock on its page in the admin: templates/admin/distlock/lock/history.html."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.db import Error
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from django_distlock.arguments import format_duration
from django_distlock.conf import lock_backends
from django_distlock.records import EventKind

from .history import PastEvent, history

BARS: Final = 30
"""How many acquisitions and refusals the picture has, at most."""
WIDTH: Final = 1_000
ROW: Final = 14
"""Units of the picture: pixels in height; in width, the page stretches it."""
BAR: Final = 10
NARROWEST: Final = 2
NO_TIME: Final = timedelta()


class ShownEvent(NamedTuple):
    """An event in the list: texts, which may be empty."""

    at: datetime
    """In the reader's time zone, which templates don't see to without USE_TZ."""
    kind: str
    word: str
    holder: str
    token: int | None
    waited: str
    held: str
    note: str


class Bar(NamedTuple):
    """One acquisition or refusal in the picture: how long it waited, then how long it held."""

    y: int
    waited: int
    held: int
    kind: str
    """What it came to; `acquired` means that it is still held, or its end isn't known."""
    at: datetime
    text: str


class Chart(NamedTuple):
    """The picture: bars, the newest on top, on one scale."""

    bars: list[Bar]
    height: int
    scale: str
    """The duration of the whole width."""

    @property
    def width(self) -> int:
        """The longest bar's."""
        return WIDTH

    @property
    def bar(self) -> int:
        """A bar's height."""
        return BAR


@dataclass(frozen=True, slots=True)
class Past:
    """What the page shows of a lock's past, or the problem why it can't."""

    events: list[ShownEvent] = field(default_factory=list)
    chart: Chart | None = None
    problem: str = ""


def past_of(backend: str, semaphore: str, limit: int = 100) -> Past | None:
    """Return the lock's history; None if its store keeps none."""
    if not lock_backends[backend].events:
        return None
    try:
        events = history(backend, semaphore, limit)
    except Error as error:
        return Past(problem=str(error))
    return Past([_shown(event) for event in events], chart_of(events))


def chart_of(events: list[PastEvent]) -> Chart | None:
    """Return the picture of these events, the newest first; None if there is nothing to draw."""
    spans = _spans(events)[:BARS]
    longest = max((span.waited + span.held for span in spans), default=NO_TIME)
    if not longest:
        return None
    bars = [
        Bar(
            ROW * row,
            _units(span.waited, longest),
            _units(span.held, longest),
            span.kind.value,
            localtime(span.at),
            ", ".join(_durations(span.waited or None, span.held or None)),
        )
        for row, span in enumerate(spans)
    ]
    return Chart(bars, ROW * len(bars), describe_duration(longest))


class _Span(NamedTuple):
    kind: EventKind
    at: datetime
    waited: timedelta
    held: timedelta


def _spans(events: list[PastEvent]) -> list[_Span]:
    """Join each grant with its end, by token and holder. The newest first."""
    spans: list[_Span] = []
    open_spans: dict[tuple[int | None, str], int] = {}
    for event in reversed(events):
        name = event.token, event.holder
        match event.kind:
            case EventKind.FORCE_RELEASED:
                continue  # its holder's loss tells how long it was held
            case EventKind.ACQUIRED:
                open_spans[name] = len(spans)
            case EventKind.RELEASED | EventKind.LOST if name in open_spans:
                index = open_spans.pop(name)
                spans[index] = spans[index]._replace(kind=event.kind, held=event.held or NO_TIME)
                continue
        waited, held = event.waited or NO_TIME, event.held or NO_TIME
        spans.append(_Span(event.kind, event.at, waited, held))
    return spans[::-1]


def _units(duration: timedelta, longest: timedelta) -> int:
    return max(NARROWEST, round(WIDTH * (duration / longest))) if duration else 0


def _shown(event: PastEvent) -> ShownEvent:
    waited, held = (
        describe_duration(each) if each is not None else "" for each in (event.waited, event.held)
    )
    note = _("by %(person)s") % {"person": event.by} if event.by else event.reason
    at, kind = localtime(event.at), event.kind.value
    return ShownEvent(at, kind, event.word, event.holder, event.token, waited, held, note)


def _durations(waited: timedelta | None, held: timedelta | None) -> list[str]:
    texts = []
    if waited is not None:
        texts.append(_("waited %(duration)s") % {"duration": describe_duration(waited)})
    if held is not None:
        texts.append(_("held %(duration)s") % {"duration": describe_duration(held)})
    return texts


def describe_duration(duration: timedelta) -> str:
    """Return a duration as short as people read it: `35 ms`, `3.2 s`, `1h 5m`."""
    seconds = duration.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else format_duration(duration)
