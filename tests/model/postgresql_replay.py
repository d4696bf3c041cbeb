"""Repeat a run of the model on a real PostgreSQL, whose clock stands still between ticks."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from operator import methodcaller
from typing import TYPE_CHECKING, Any, ClassVar, Final
from unittest import mock

from django.db import connections

from django_distlock import clocks
from django_distlock.backends.database import DatabaseBackend
from django_distlock.backends.database import connections as own
from django_distlock.backends.database.operating import connected
from django_distlock.backends.database.places import QueuedPlace
from django_distlock.backends.database.queue import OFFER
from django_distlock.models import Lock, LockWaiter, WaitingProcess
from django_distlock.records import RenewalOutcome
from tests.app.models import Counter
from tests.support.databases import another_session

from .replay import SEMAPHORES, TTL, Replay

if TYPE_CHECKING:
    from typing import Self

    from django.db.backends.base.base import BaseDatabaseWrapper

    from django_distlock.backends.database.statements import Statements

    from .replay import Client

ALIAS: Final = "postgresql"
STOPPED: Final = "(SELECT microseconds FROM model_clock)"
"""The clock, instead of clock_timestamp()."""
START: Final = 1_800_000_000_000_000
HOUR: Final = 3_600_000_000
LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)


class Listening:
    """Stands in for the thread that listens: the replay passes offers on."""

    is_listening = True

    def __init__(self, process: int) -> None:
        self.process = process

    def may_listen(self) -> bool:
        return True

    def is_silent(self) -> bool:
        return True  # each waiter sends the heartbeat itself

    def suspend(self) -> None:
        raise AssertionError

    def add(self, place: QueuedPlace) -> None:
        pass

    def remove(self, place: QueuedPlace) -> None:
        pass


class ModelledBackend(DatabaseBackend):
    """The real store, of one client's process."""

    changes: ClassVar[dict[str, tuple[str, str]]] = {}
    """What is replaced in which statement: a dropped premise."""
    process = 0

    @classmethod
    def statements(cls, connection: BaseDatabaseWrapper) -> Statements:
        found = super().statements(connection)
        for name, (part, instead) in cls.changes.items():
            sql = getattr(found, name)
            assert sql.count(part) == 1
            setattr(found, name, sql.replace(part, instead))
        return found

    def _listener(self) -> Any:
        return Listening(self.process)


class ReleasesAnybodys(ModelledBackend):
    """A release doesn't compare the owner."""

    changes: ClassVar = {"release_sql": ("AND owner = %(owner)s::varchar", "")}


class WithoutRowLock(ModelledBackend):
    """The commit guard looks at the row, but doesn't lock it."""

    changes: ClassVar = {"guard_sql": ("FOR SHARE", "")}


class PostgreSQLReplay(Replay):
    """Each client has a store, and a session for its transactions."""

    tick_seconds = OFFER / 1_000_000

    def __init__(self, kind: type[ModelledBackend] = ModelledBackend) -> None:
        super().__init__()
        self.committed: list[int] = []
        """The clients that committed, in order."""
        self._stores = {
            number: kind(ALIAS, using=ALIAS, store_timeout=60) for number in self.clients
        }
        for number, store in self._stores.items():
            store.process = number
        self._places: dict[int, QueuedPlace] = {}
        self._passed_on: set[tuple[str, int]] = set()
        self._silent: set[int] = set()
        self._sessions: dict[int, BaseDatabaseWrapper] = {}
        self._transactions: dict[int, ExitStack] = {}
        self._clock = mock.patch.dict(clocks.NOW, postgresql=STOPPED)

    def __enter__(self) -> Self:
        with connections[ALIAS].cursor() as cursor:
            cursor.execute("CREATE TABLE model_clock (microseconds bigint)")
            cursor.execute("INSERT INTO model_clock VALUES (%s)", [START])
        self._clock.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._clock.stop()
        for client in self.clients.values():
            self.die(client)
            if client.number in self._places:
                self.leave(client)
        own.close_own_connections()
        for model in (Lock, LockWaiter, WaitingProcess):
            model.objects.using(ALIAS).all().delete()
        with connections[ALIAS].cursor() as cursor:
            cursor.execute("DROP TABLE model_clock")

    def acquire(self, client: Client) -> int | str:
        store, name = self._stores[client.number], SEMAPHORES[client.lock]
        if client.number in self._places:
            self._send_heartbeat(client.number)
        grant = store.acquire(name, client.owner, TTL * self.tick_seconds, "a client")
        if not grant:
            return "refused"
        assert grant.token is not None
        if place := self._places.pop(client.number, None):
            store.leave(place, granted=True)
        return grant.token

    def renew(self, client: Client) -> str:
        claim = self.claim(client)
        renewal = self._stores[client.number].renew([claim])[claim.owner]
        return {RenewalOutcome.RENEWED: "held", RenewalOutcome.LOST: "lost"}[renewal.outcome]

    def release(self, client: Client) -> str:
        released = self._stores[client.number].release(self.claim(client))
        self._pass_offers_on()
        return "released" if released else "lost"

    def join(self, client: Client) -> str:
        place = self._stores[client.number].join(
            SEMAPHORES[client.lock], client.owner, "a client", lambda: None
        )
        assert isinstance(place, QueuedPlace)
        self._places[client.number] = place
        self._silent.discard(client.number)
        return "queued"

    def leave(self, client: Client) -> str:
        self._stores[client.number].leave(self._places.pop(client.number), granted=False)
        self._pass_offers_on()
        return "gone"

    def speak(self, client: Client) -> str:
        self._send_heartbeat(client.number)
        self._places[client.number].join_again(self._run)
        return "done"

    def fall_silent(self, client: Client) -> str:
        """Let the process send no heartbeat for long."""
        self._silent.add(client.number)
        processes = WaitingProcess.objects.using(ALIAS)
        assert processes.filter(id=client.number).update(seen_at=LONG_AGO)
        return "done"

    def offer_free(self, client: Client) -> str:
        """Offer the free lock as the client's listener does."""
        offered = self._run(methodcaller("offer_free", SEMAPHORES[client.lock]))
        self._pass_offers_on()
        return "offered" if offered else "refused"

    def guard(self, client: Client) -> str:
        """Write in a transaction, whose last statement before the commit is the guard."""
        if client.ends <= self.now:  # by its own clock
            return "lost"
        stack = ExitStack()
        session = stack.enter_context(another_session(ALIAS))
        session.set_autocommit(False)
        with connected(ALIAS, session):
            Counter.objects.using(ALIAS).create(value=client.number)
            held = self._stores[client.number].guard(self.claim(client), ALIAS)
        if not held:
            stack.close()
            return "lost"
        stack.callback(session.rollback)  # of nothing, after the commit
        self._transactions[client.number] = stack
        self._sessions[client.number] = session
        return "held"

    def commit(self, client: Client) -> str:
        """Commit what the guard was for."""
        self._sessions[client.number].commit()
        self._transactions.pop(client.number).close()
        self.committed.append(client.number)
        return "committed"

    def die(self, client: Client) -> str:
        if transaction := self._transactions.pop(client.number, None):
            transaction.close()
        return "done"

    def tick(self) -> None:
        self._move_clock(OFFER)
        for number in self._places.keys() - self._silent:
            self._send_heartbeat(number)

    def clock_step(self) -> None:
        """Let the store's clock step forward, but nobody else's."""
        self._move_clock(OFFER)

    def set_back(self) -> None:
        self._move_clock(-HOUR)

    def catch_up(self) -> None:
        self._move_clock(HOUR)

    def purge(self, semaphore: str) -> None:
        """Delete the row of a lock that nobody holds."""
        assert Lock.objects.using(ALIAS).filter(semaphore=semaphore).delete()

    def force_release(self, semaphore: str) -> None:
        token = Lock.objects.using(ALIAS).get(semaphore=semaphore).token
        assert self._run(methodcaller("force_release", {"semaphore": semaphore, "token": token}))
        self._pass_offers_on()

    def _run(self, action: Any, *arguments: Any) -> Any:
        return own.own_connections(ALIAS, 2, type(self._stores[1]).statements).do(
            action, clocks.monotonic() + 60
        )

    def _move_clock(self, microseconds: int) -> None:
        with connections[ALIAS].cursor() as cursor:
            cursor.execute(
                "UPDATE model_clock SET microseconds = microseconds + %s", [microseconds]
            )

    def _send_heartbeat(self, number: int) -> None:
        self._silent.discard(number)
        self._run(methodcaller("heartbeat", number, []))

    def _pass_offers_on(self) -> None:
        """Tell each waiter of its offer, as the notification does; once."""
        offers = Lock.objects.using(ALIAS).filter(acquired_at=None).values_list("owner", "token")
        for owner, token in set(offers) - self._passed_on:
            self._passed_on.add((owner, token))
            for number, place in self._places.items():
                if self.clients[number].owner == owner:
                    place.offer()
