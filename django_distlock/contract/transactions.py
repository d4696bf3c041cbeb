"""A transactional store, where no transaction is open: nothing depends on one."""

from django_distlock.backends.base import TransactionalStore

from .cases import StoreTestCase


class TransactionTests(StoreTestCase):
    """The methods of TransactionalStore."""

    def transactional_store(self) -> TransactionalStore:
        """Return the store; skip the test if it has no part in transactions."""
        store = self.backend
        if not isinstance(store, TransactionalStore):
            raise self.lacks("part in transactions")
        return store

    def test_outside_a_transaction_nothing_depends_on_one(self) -> None:
        store = self.transactional_store()
        self.assertFalse(store.joins_transaction())
        self.assertTrue(store.can_renew())

    def test_store_has_no_part_in_another_database(self) -> None:
        store = self.transactional_store()
        self.assertIsNone(store.guard(self.grant(self.new_semaphore()), "no such database"))
