"""Pages of locks: what an operator sees of each, how it is searched, and what is counted."""

from unittest import mock

from django_distlock.backends.operations import ListingStore
from django_distlock.records import LockInfo, LockPage, LockQuery, LockState, SearchScope

from .cases import GrantedLease, StoreTestCase


class PageTests(StoreTestCase):
    """ListingStore.page() and find(), and what they tell of a lock."""

    def listing_store(self) -> ListingStore:
        """Return the store; skip the test if it can't list."""
        store = self.backend
        if not isinstance(store, ListingStore):
            raise self.lacks("listing")
        return store

    def found(self, semaphore: str) -> LockInfo:
        """Return what is listed of a lock: the same on a page and alone."""
        alone, page = self.listing_store().find(semaphore), self.page(LockQuery(semaphore))
        assert alone is not None
        self.assertEqual([each.semaphore for each in page.locks], [semaphore])
        for name in ("state", "token", "holder", "acquired_at", "renewed_at", "kept", "waiting"):
            self.assertEqual(getattr(page.locks[0], name), getattr(alone, name), name)
        return alone

    def renewed(self, held: GrantedLease) -> LockInfo:
        """Renew the lease; return what is listed of the lock then."""
        self.assertTrue(self.backend.renew([held])[held.owner].renewed)
        return self.found(held.semaphore)

    def page(self, query: LockQuery) -> LockPage:
        """Return a page."""
        return self.listing_store().page(query)

    def names(self, query: LockQuery) -> list[str]:
        """Return the semaphores on a page, without what all have in common."""
        return [each.semaphore.rpartition("/")[2] for each in self.page(query).locks]

    def test_lock_is_found_by_its_whole_name(self) -> None:
        held = self.grant(self.new_semaphore())
        self.grant(f"{held.semaphore}, and more")
        found = self.found_alone(held)
        assert found.acquired_at is not None
        self.assert_close(found.acquired_at, held.grant.acquired_at)
        self.assert_close(found.expires_at, held.grant.expires_at)
        self.assertGreaterEqual(found.seen_at, found.acquired_at)
        self.assertIsNone(self.listing_store().find(held.semaphore[:-1]))
        self.assertIsNone(self.listing_store().find(self.new_semaphore()))

    def found_alone(self, held: GrantedLease) -> LockInfo:
        """Return what find() tells of a held lock."""
        found = self.listing_store().find(held.semaphore)
        assert found is not None
        self.assertEqual((found.semaphore, found.holder), (held.semaphore, held.holder))
        self.assertEqual((found.state, found.token), (LockState.HELD, held.token))
        return found

    def test_last_renewal_is_listed(self) -> None:
        """None before the first one; the next holder's lease has none of its own."""
        self.require(self.listing_store().lists_renewals, "renewals in its list")
        held = self.grant(self.new_semaphore())
        self.assertIsNone(self.found(held.semaphore).renewed_at)
        # A store may compute it from the lock's end: then a renewal at once can't be told apart.
        self.wait_until(lambda: self.renewed(held).renewed_at is not None)
        renewed = self.renewed(held)
        assert renewed.renewed_at is not None
        self.assertLessEqual(held.grant.acquired_at, renewed.renewed_at)
        self.assertLessEqual(renewed.renewed_at, renewed.seen_at)
        self.assertTrue(self.backend.release(held))
        self.grant(held.semaphore)
        self.assertIsNone(self.found(held.semaphore).renewed_at)

    def test_what_is_only_kept_from_others_is_marked(self) -> None:
        self.require(self.listing_store().lists_renewals, "renewals in its list")
        held = self.grant(self.new_semaphore())
        self.assertFalse(self.found(held.semaphore).kept)
        self.assertTrue(self.backend.release(held, 60))
        kept = self.found(held.semaphore)
        self.assertEqual((kept.kept, kept.state), (True, LockState.HELD))

    def test_search_finds_any_part_of_semaphore_and_holder_in_either_case(self) -> None:
        """As far as the store searches: it says where, and finds nothing else."""
        prefix = f"{self.new_semaphore()}/"
        for name in ("1234Collect", "collect%9", "ship_1", "9999"):
            self.grant(prefix + name)
        by_holder = self.page(LockQuery(prefix, search="CONTRACT"))
        scope = by_holder.scope
        everything = sorted(("1234Collect", "collect%9", "ship_1", "9999"))
        self.assertEqual(
            [each.semaphore.removeprefix(prefix) for each in by_holder.locks],
            everything if scope is SearchScope.SEMAPHORE_AND_HOLDER else [],
        )
        if scope is SearchScope.PREFIX:
            self.assertEqual(self.names(LockQuery(prefix, search="collect")), ["collect%9"])
            return
        for search, expected in (
            ("COLLECT", ["1234Collect", "collect%9"]),
            ("t%9", ["collect%9"]),
            ("p_1", ["ship_1"]),
            ("_", ["ship_1"]),
            ("%", ["collect%9"]),
            ("nowhere", []),
        ):
            self.assertEqual(self.names(LockQuery(prefix, search=search)), expected, search)

    def test_pages_follow_each_other_in_the_order_of_the_semaphores(self) -> None:
        prefix = f"{self.new_semaphore()}/"
        for name in ("d", "b", "e", "a", "c"):
            self.grant(prefix + name)
        pages = [self.names(LockQuery(prefix, page=number, limit=2)) for number in (1, 2, 3, 4)]
        self.assertEqual(pages, [["a", "b"], ["c", "d"], ["e"], []])
        page = self.page(LockQuery(prefix, page=2, limit=2))
        self.assertEqual((page.found, page.is_capped), (5, False))

    def test_states_are_listed_and_counted(self) -> None:
        """The counts are of all states, whichever is asked for."""
        self.listing_store()
        prefix = f"{self.new_semaphore()}/"
        self.expired(f"{prefix}stale")
        for name in ("held", "held too"):
            self.grant(prefix + name)
        self.backend.release(self.grant(f"{prefix}released"))
        stale = ["stale"] if self.keeps_expired else []
        held = ["held", "held too"]
        for state, expected in (
            (None, held + stale),
            (LockState.HELD, held),
            (LockState.STALE, stale),
        ):
            query = LockQuery(prefix, state=state)
            self.assertEqual(self.names(query), expected)
            page = self.page(query)
            self.assertEqual(page.found, len(expected))
            counted = {each: page.counts.get(each, 0) for each in (LockState.HELD, LockState.STALE)}
            self.assertEqual(
                counted, {LockState.HELD: len(held), LockState.STALE: len(stale)}, state
            )

    def test_page_of_too_many_locks_says_so(self) -> None:
        """What it shows is right all the same, and a longer prefix finds the rest."""
        store, prefix = self.listing_store(), f"{self.new_semaphore()}/"
        for name in ("a1", "a2", "b1", "b2", "b3"):
            self.grant(prefix + name)
        with mock.patch.object(type(store), "window", 3):
            page = self.page(LockQuery(prefix))
            self.assertTrue(page.is_capped)
            self.assertEqual(len(page.locks), 3)
            names = self.names(LockQuery(prefix))
            self.assertEqual(names, sorted(names))
            narrow = self.page(LockQuery(f"{prefix}b"))
            self.assertFalse(narrow.is_capped)
            self.assertEqual(narrow.found, 3)
            self.assertEqual(self.names(LockQuery(prefix, search="b2")), ["b2"])
