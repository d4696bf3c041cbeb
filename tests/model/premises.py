"""What is checked: the promise of each store, and each premise that can be dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CHECKS: Final = {
    "PostgreSQL": ("-DDATABASE", "-DSYMMETRY"),
    "the lock server": ("-DLOCK_SERVER", "-DSYMMETRY"),
    "PostgreSQL: a waiter gets a free lock": ("-DDATABASE", "-DSYMMETRY", "-DPROMPT"),
    "the lock server: a waiter gets a free lock": ("-DLOCK_SERVER", "-DSYMMETRY", "-DPROMPT"),
}
"""The flags of the searches that find nothing wrong."""


@dataclass(frozen=True)
class Premise:
    """A premise of the promise."""

    text: str
    store: str
    """The flag of the store on which its counterexample is repeated."""
    dropped: str
    """The flag of the model without it."""

    @property
    def flags(self) -> tuple[str, ...]:
        """Return the flags of the search for its counterexample."""
        return self.store, self.dropped, "-DDROPPED", "-DSEQUENTIAL"

    def __str__(self) -> str:
        return self.text


OWN_RELEASE: Final = Premise("a release compares the owner", "-DDATABASE", "-DRELEASES_ANYBODYS")
CLOCK_FORWARD: Final = Premise(
    "the store's clock does not step forward", "-DDATABASE", "-DCLOCK_STEPS"
)
ROW_LOCK: Final = Premise("the commit guard locks the lock's row", "-DDATABASE", "-DNO_ROW_LOCK")
GRACE: Final = Premise("the grace period is at least the longest ttl", "-DLOCK_SERVER", "-DGRACE=1")
TOKENS: Final = Premise(
    "no token is lost while the store's clock is set back", "-DDATABASE", "-DFORGETS_TOKENS"
)
PREMISES: Final = (OWN_RELEASE, CLOCK_FORWARD, ROW_LOCK, GRACE, TOKENS)
