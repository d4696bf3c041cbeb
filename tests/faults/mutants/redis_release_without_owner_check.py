"""Redis: a release ends whatever lease there is."""

from __future__ import annotations

from django_distlock.backends.redis.scripts import RELEASE
from tests.support.redis_stores import vary

OWN = "if not held or string.sub(held, 1, #start) ~= start then"


def apply() -> None:
    """Make the mistake."""
    source = RELEASE.source
    assert OWN in source
    vary(RELEASE, source.replace(OWN, "if not held then"))
