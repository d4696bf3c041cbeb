"""The contract that every lock store keeps, as tests: subclass it for a store of your own.

    class MyStoreTests(LockBackendContract, SimpleTestCase):
        alias = "mine"  # in DISTLOCK

Tests of what a store doesn't declare are skipped. No other test is.
"""

from .suite import LockBackendContract

__all__ = ["LockBackendContract"]
