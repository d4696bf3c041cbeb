"""Redis: a waiter that leaves keeps the lock that it is offered, though it is of no use to it.

Offers last for a minute here, so that the mistake is seen: usually they end by themselves.
"""

from __future__ import annotations

from django_distlock.backends.redis.scripts import LEAVE
from tests.support.redis_stores import let_offers_last, vary

OFFERED = "redis.call('ZREM', queue, ARGV[1])\nif is_held_by(owner) then"


def apply() -> None:
    """Make the mistake."""
    let_offers_last()
    assert OFFERED in LEAVE.source
    vary(LEAVE, LEAVE.source.replace(OFFERED, OFFERED.replace("is_held_by(owner)", "false")))
