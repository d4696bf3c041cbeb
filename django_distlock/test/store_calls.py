"""Call a store for the test kit, in sync code and in async code."""

from django_distlock.backends.memory import MemoryBackend
from django_distlock.concurrency.store_calls import Policy, T, ask
from django_distlock.conf import lock_backends
from django_distlock.leases.owned_lease import refuse_event_loop


def ask_store(alias: str, policy: Policy[T]) -> T:
    """Run the policy in this thread.

    In a running event loop that is SynchronousOnlyOperation, but on the memory store, which never
    waits: async code awaits aask() instead.
    """
    store = lock_backends[alias]
    if not isinstance(store, MemoryBackend):
        refuse_event_loop()
    return ask(store, policy)
