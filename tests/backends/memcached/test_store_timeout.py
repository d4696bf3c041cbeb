"""How long a call to Memcached may take, whatever the server does."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from django_distlock import LockBackendUnavailable, acquire_lock, clocks
from django_distlock.backends import memcached_clients
from django_distlock.leases.request import new_owner
from django_distlock.records import LeaseClaim, RenewalOutcome
from tests.support.memcached_stores import (
    configured,
    leading_to,
    on_memcached,
)
from tests.support.scripted_memcached import ScriptedServer

pytestmark = pytest.mark.once
needs_memcached = pytest.mark.needs("memcached")


def test_nothing_is_asked_when_the_time_is_over() -> None:
    """A client can't wait for a negative time."""
    client = mock.Mock(spec=memcached_clients.Client)
    with pytest.raises(TimeoutError):
        memcached_clients.Conversation(client, clocks.monotonic() - 1).read(b"a")
    client.read.assert_not_called()


class HangingClient(memcached_clients.Client):
    """A client that spends all the time it is given, by the test's clock."""

    errors = (TimeoutError,)

    def __init__(self, clock: list[float], connecting: float = 0) -> None:
        self.clock = clock
        self.connecting = connecting
        self.waiting = 0.0

    def set_timeout(self, seconds: float) -> None:
        self.waiting = seconds

    def read(self, key: bytes) -> Any:
        self.clock[0] += self.connecting + self.waiting
        raise TimeoutError

    def add(self, key: bytes, owner: str, expiry: int) -> Any:
        self.read(key)

    def is_refusal(self, error: Exception) -> bool:
        return False

    def close(self) -> None:
        """Do nothing: there is no connection."""


@needs_memcached
@pytest.mark.parametrize("idle", [True, False])
def test_server_has_the_store_timeout(
    idle: bool, stores_clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To connect, to be asked and to answer; no request is repeated that may have been done."""
    began = stores_clock[0]
    new = mock.Mock(side_effect=lambda seconds: HangingClient(stores_clock, seconds))
    monkeypatch.setattr(memcached_clients.Server, "new", new)
    with configured("memcached", store_timeout=4) as store:
        new.reset_mock()
        if idle:
            store.server.put_back(HangingClient(stores_clock))
        with pytest.raises(LockBackendUnavailable) as caught:
            store.acquire("1234collectPayment", "owner", 60, "")
    assert stores_clock[0] - began == 4
    assert new.called is not idle
    assert caught.value.reply_lost is idle


@needs_memcached
@pytest.mark.parametrize("idle", [True, False])
def test_tries_and_their_undo_share_one_store_timeout(
    idle: bool, stores_clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second try of a call and the release of a possible grant share it."""
    began = stores_clock[0]
    new = mock.Mock(side_effect=lambda seconds: HangingClient(stores_clock, seconds))
    monkeypatch.setattr(memcached_clients.Server, "new", new)
    with configured("memcached", store_timeout=4) as store:
        if idle:
            store.server.put_back(HangingClient(stores_clock))
        with pytest.raises(LockBackendUnavailable):
            acquire_lock("1234collectPayment", backend="memcached")
    assert stores_clock[0] - began == 4


@needs_memcached
def test_renewal_at_a_hanging_server_has_one_store_timeout(
    stores_clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For all leases; but each answer shows that the server is alive."""
    began = stores_clock[0]
    client = HangingClient(stores_clock)
    leases = [LeaseClaim(name, new_owner(), 60) for name in "abcdefgh"]
    answers = [memcached_clients.Entry(lease.owner, 1) for lease in leases[1::-1]]

    def read(key: bytes) -> Any:
        if not answers:
            return HangingClient.read(client, key)
        stores_clock[0] += 3
        return answers.pop()

    monkeypatch.setattr(client, "read", read)
    monkeypatch.setattr(client, "replace", lambda *arguments: True)
    new = mock.Mock(side_effect=lambda seconds: HangingClient(stores_clock, seconds))
    monkeypatch.setattr(memcached_clients.Server, "new", new)
    with configured("memcached", store_timeout=4) as store:
        store.server.put_back(client)
        renewals = store.renew(leases)
    outcomes = [renewals[lease.owner].outcome for lease in leases]
    assert outcomes == [RenewalOutcome.RENEWED] * 2 + [RenewalOutcome.HELD] * 6
    assert stores_clock[0] - began == 3 + 3 + 4


@on_memcached
def test_several_answers_together_take_the_store_timeout(
    alias: str, stores_clock: list[float]
) -> None:
    """Not each of them."""
    answers = {"gets": (8, "END\r\n"), "add": (8, "NOT_STORED\r\n")}
    with ScriptedServer(stores_clock, **answers) as server:
        with leading_to(server.port, alias, store_timeout=20) as store:
            with pytest.raises(LockBackendUnavailable, match="timed out"):
                store.acquire("1234collectPayment", "owner", 60, "")
    assert len(server.asked) == 3
