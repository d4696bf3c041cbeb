"""An async store gives in an event loop the same answers as in a thread."""

import asyncio

from django_distlock.backends.base import AsyncStore, QueueingStore
from django_distlock.leases.request import new_owner
from django_distlock.records import LOST, Released

from .cases import StoreTestCase


class AsyncTests(StoreTestCase):
    """The methods of AsyncStore."""

    def async_store(self) -> AsyncStore:
        """Return the store; skip the test if it has no coroutines."""
        store = self.backend
        if not isinstance(store, AsyncStore):
            raise self.lacks("coroutines")
        return store

    def test_coroutines_answer_as_their_sync_twins(self) -> None:
        store, held = self.async_store(), self.grant(self.new_semaphore())

        async def use() -> None:
            deadline = store.new_deadline()
            acquire = (held.semaphore, new_owner(), 60, "contract")
            self.assertFalse(await store.aacquire(*acquire, deadline=deadline))
            again = (held.semaphore, held.owner, 60, "contract")
            grant = await store.aacquire(*again, deadline=deadline)
            assert grant
            self.assertEqual(grant.token, held.token)
            stranger = held._replace(owner=new_owner())
            renewals = await store.arenew([held, stranger], deadline=deadline)
            self.assertTrue(renewals[held.owner].renewed)
            self.assertEqual(renewals[stranger.owner], LOST)
            for lease, released in (
                (stranger, Released.NOT_HELD),
                (held, Released.FREED),
                (held, Released.NOT_HELD),
            ):
                self.assertIs(await store.arelease(lease, deadline=deadline), released)

        asyncio.run(use())
        self.assert_free(held.semaphore)

    def test_release_in_an_event_loop_can_keep_others_out(self) -> None:
        store, held = self.async_store(), self.grant(self.new_semaphore())

        async def release() -> Released:
            return await store.arelease(held, 60, deadline=store.new_deadline())

        self.assertIs(asyncio.run(release()), Released.FREED)
        self.assertFalse(self.try_once(held.semaphore))

    def test_task_waits_in_the_same_queue(self) -> None:
        store, held = self.async_store(), self.grant(self.new_semaphore())
        self.require(isinstance(store, QueueingStore), "queue")

        async def wait() -> None:
            owner, woken, loop = new_owner(), asyncio.Event(), asyncio.get_running_loop()

            def wake() -> None:
                loop.call_soon_threadsafe(woken.set)

            deadline = store.new_deadline()
            place = await store.ajoin(held.semaphore, owner, "contract", wake, deadline=deadline)
            assert place is not None
            self.assertIs(
                await store.arelease(held, deadline=store.new_deadline()), Released.HANDED_OVER
            )
            await asyncio.wait_for(woken.wait(), 30)
            deadline = store.new_deadline()
            grant = await store.aacquire(held.semaphore, owner, 60, "contract", deadline=deadline)
            assert grant
            await store.aleave(place, True, deadline=store.new_deadline())
            lease = held._replace(owner=owner, grant=grant)
            self.assertTrue(await store.arelease(lease, deadline=store.new_deadline()))

        asyncio.run(wait())
        self.assert_free(held.semaphore)
