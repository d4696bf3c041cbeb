"""Durations are written and read as people do."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_distlock.arguments import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0s", timedelta(0)),
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("12h", timedelta(hours=12)),
        ("1d", timedelta(days=1)),
        ("007d", timedelta(days=7)),
        ("999999d", timedelta(days=999_999)),
    ],
)
def test_number_with_a_unit_is_a_duration(text: str, duration: timedelta) -> None:
    """Seconds, minutes, hours and days, up to six digits."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    [
        *("", "s", "90", "90 s", " 90s", "90s ", "90s\n", "90S", "1w", "1y", "-1d", "+1d", "1.5h"),
        *("1d2h", "1d 2h", "1e3s", "9999999s", "1_0s", "s1", "one day", "1dd"),
    ],
)
def test_other_text_is_refused_with_an_example(text: str) -> None:
    """The message shows what was given, and how it is done."""
    with pytest.raises(ValueError, match="is not a duration; write 90s, 15m, 12h or 1d") as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(milliseconds=999), "0s"),
        (timedelta(seconds=42), "42s"),
        (timedelta(seconds=59.999), "59s"),
        (timedelta(seconds=60), "1m"),
        (timedelta(seconds=61), "1m 1s"),
        (timedelta(hours=1, seconds=5), "1h 5s"),
        (timedelta(hours=2, minutes=3, seconds=4), "2h 3m"),
        (timedelta(days=1, hours=3, minutes=59, seconds=59), "1d 3h"),
        (timedelta(days=400), "400d"),
        (timedelta(seconds=-1), "0s"),
        (timedelta(days=-1), "0s"),
    ],
)
def test_duration_is_shown_in_its_two_largest_units(duration: timedelta, text: str) -> None:
    """Rounded down, and never below nothing."""
    assert format_duration(duration) == text


@pytest.mark.once
@given(number=st.integers(1, 59), unit=st.sampled_from("smhd"))
@settings(deadline=None)
def test_duration_survives_parsing_and_formatting(number: int, unit: str) -> None:
    """Within a unit's range both notations are one, or the next unit carries over."""
    duration = parse_duration(f"{number}{unit}")
    shown = format_duration(duration)
    assert sum((parse_duration(part) for part in shown.split()), timedelta()) == duration
