"""The test kit: hold, lose and watch locks in the tests of a site."""

from .assertions import assert_locked
from .captured_locks import CapturedEvent, CapturedLocks, captured_locks
from .case_mixin import LockTestMixin
from .holders import held_elsewhere
from .leaks import no_lock_held_after_test
from .lock_order import consistent_lock_order
from .losses import aexpire, alose, expire, lose
from .outages import store_down
from .overriding import override_locks

__all__ = [
    "CapturedEvent",
    "CapturedLocks",
    "LockTestMixin",
    "aexpire",
    "alose",
    "assert_locked",
    "captured_locks",
    "consistent_lock_order",
    "expire",
    "held_elsewhere",
    "lose",
    "no_lock_held_after_test",
    "override_locks",
    "store_down",
]
