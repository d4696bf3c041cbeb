"""Fencing tokens: microseconds since the epoch, and greater than every earlier token."""

from typing import Final

from .errors import FutureToken

DAY: Final = 86_400_000_000
"""Microseconds that a token from outside may be ahead of the clock: clocks are set now and then."""


def next_token(last: int, now: int) -> int:
    """Return the token of a grant at `now`, in microseconds."""
    # A token that equals the time is the same int object, which saves memory.
    return now if now > last else last + 1


def check_token(token: int, now: int) -> None:
    """Raise FutureToken if the token is more than a day ahead of the clock, which says `now`."""
    if token - now > DAY:
        raise FutureToken(
            f"the token {token} can't have been granted: it is more than a day beyond this "
            f"machine's clock, which says {now}; if that is wrong, set it"
        )
