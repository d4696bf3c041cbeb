"""No mistake, but offers that last.

What offer_not_withdrawn is compared with.
"""

from __future__ import annotations

from tests.support.postgresql_waiters import let_offers_last


def apply() -> None:
    """Make the offers last.

    A waiter that leaves passes its offer on, so nobody waits for its end.
    """
    let_offers_last()
