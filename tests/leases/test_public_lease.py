"""`Lease` shows its holder what is the holder's, and nothing else."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

from django_distlock import Lease, acquire_lock
from django_distlock.signals import lock_acquired, lock_released
from tests.support.leases import internals

if TYPE_CHECKING:
    from tests.support.scripted_store import ScriptedBackend

PUBLIC = {
    *("semaphore", "backend", "template", "holder", "token", "ttl"),
    *("acquired_at", "expires_at", "waited", "held", "held_for", "remaining"),
    *("check", "acheck", "renew", "arenew", "release", "arelease"),
}


@pytest.fixture
def lease(scripted: ScriptedBackend) -> Lease:
    """Hold a lease of a minute in a scripted store."""
    lease = acquire_lock("1234collectPayment")
    assert lease is not None
    return lease


def shown(value: object) -> set[str]:
    """Return the public names that an interactive shell offers."""
    return {name for name in dir(value) if not name.startswith("_")}


def test_editors_and_shells_offer_what_is_the_holders(lease: Lease) -> None:
    """The secret by which anybody could release the lock is not among it."""
    assert shown(Lease) == shown(lease) == PUBLIC
    assert internals(lease).owner


def test_every_public_name_is_documented() -> None:
    """An editor shows it, and so does help()."""
    for name in PUBLIC:
        assert inspect.getdoc(getattr(Lease, name)), name


def test_users_get_leases_and_make_none(lease: Lease) -> None:
    """They have no attributes but their own, so that a misspelt one raises."""
    assert isinstance(lease, Lease)
    assert repr(lease).startswith("<Lease '1234collectPayment'")
    with pytest.raises(TypeError, match="abstract"):
        Lease()  # type: ignore[abstract]
    with pytest.raises(AttributeError):
        lease.tokn = 1  # type: ignore[attr-defined]


def test_sender_of_signals_is_the_public_class(scripted: ScriptedBackend) -> None:
    """A receiver can be connected for `sender=Lease`."""
    received: list[object] = []

    def receive(sender: object, *, lease: Lease, **kwargs: object) -> None:
        received.append((sender, lease.semaphore))

    for signal in (lock_acquired, lock_released):
        signal.connect(receive, sender=Lease)
    try:
        lease = acquire_lock("1234collectPayment")
        assert lease
        lease.release()
    finally:
        for signal in (lock_acquired, lock_released):
            signal.disconnect(receive, sender=Lease)
    assert received == [(Lease, "1234collectPayment")] * 2
