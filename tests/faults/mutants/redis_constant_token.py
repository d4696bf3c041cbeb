"""Redis: each lock keeps its first token."""

from __future__ import annotations

from django_distlock.backends.redis.scripts import ACQUIRE, JOIN, LEAVE, LOOK, RELEASE
from tests.support.redis_stores import vary

RISING = "if previous and tonumber(previous) >= number then\n    token = digits(previous + 1)"


def apply() -> None:
    """Make the mistake in all scripts that grant."""
    for script in (ACQUIRE, RELEASE, JOIN, LEAVE, LOOK):
        assert RISING in script.source
        vary(script, script.source.replace(RISING, "if previous then\n    token = previous"))
