"""What happens to locks, for receivers of this process.

Each is sent in the thread that notices, `lock_lost` often by the one that renews leases: a receiver
that takes long holds that up. What a receiver raises is logged, and breaks nothing. The `sender` is
the class Lease.
"""

from django.dispatch import Signal

lock_acquired = Signal()
"""`lease`: it has just been granted."""

lock_contended = Signal()
"""`semaphore`, `backend`: somebody else held it until the timeout."""

lock_released = Signal()
"""`lease`: its holder has given it back; if that waited for transactions, they have ended."""

lock_lost = Signal()
"""`lease`, `reason`: it turned out not to be ours any more. Sent once for each lease."""

lock_force_released = Signal()
"""`semaphore`, `backend`, `token`: an operator took it from its holder, in this process."""
