"""PostgreSQL shows statements to monitoring users, who must not be able to release locks."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import connections, transaction

from django_distlock import distributed_lock, lock_backends
from django_distlock.backends.database.postgresql import PostgreSQLStatements
from tests.app.models import Counter
from tests.support.databases import behind_pgbouncer, committed
from tests.support.holders import acquire
from tests.support.leases import internals
from tests.support.postgresql_waiters import ALIAS, Line, granted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_distlock.records import Owner

pytestmark = [committed, pytest.mark.needs("postgresql")]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collect pg_stat_activity of all sessions after each statement about locks."""
    queries: list[str] = []
    settings = connections[ALIAS].settings_dict
    place = {"host": settings["HOST"], "port": settings["PORT"], "user": settings["USER"]}
    with psycopg.connect(**place, dbname=settings["NAME"], autocommit=True) as monitoring:
        for name in ("fetch", "execute"):
            method: Any = getattr(PostgreSQLStatements, name)

            def look(statements: Any, *arguments: Any, method: Any = method) -> Any:
                result = method(statements, *arguments)
                seen = monitoring.execute("SELECT query FROM pg_stat_activity")
                queries.extend(query for (query,) in seen.fetchall())
                return result

            monkeypatch.setattr(PostgreSQLStatements, name, look)
        yield queries


@pytest.mark.needs("pgbouncer")
@pytest.mark.parametrize("pooled", [False, True])
def test_no_owner_is_in_a_statement_that_monitoring_sees(pooled: bool, shown: list[str]) -> None:
    """On the locks' own connections, on the user's, and behind a pooler."""
    with behind_pgbouncer(DISABLE_SERVER_SIDE_CURSORS=True) if pooled else nullcontext():
        with distributed_lock("1234collectPayment", backend=ALIAS) as lease:
            lock_backends[ALIAS].renew([internals(lease)])
            lock_backends[ALIAS].renew([internals(lease), internals(lease)])
            with transaction.atomic(using=ALIAS):
                Counter.objects.using(ALIAS).create()
    sent = "WITH refusing", "WITH lease", "SELECT 1 FROM", "UPDATE"
    assert_shown_without({internals(lease).owner}, shown, *sent)


@pytest.mark.usefixtures("fresh_listeners")
def test_no_owner_of_a_waiter_is_in_a_statement_that_monitoring_sees(shown: list[str]) -> None:
    """Whether it joins the queue, is handed the lock, or takes it."""
    with Line() as line:
        lease = acquire(ALIAS)
        waiting = line.join()
        lease.release()
        next_lease = granted(waiting)
        next_lease.release()
    owners = {internals(lease).owner, internals(next_lease).owner}
    assert_shown_without(owners, shown, "WITH heartbeat", "WITH given", "UPDATE")


def assert_shown_without(owners: set[Owner], shown: list[str], *beginnings: str) -> None:
    """Check that statements with these beginnings were shown, and none with an owner."""
    for beginning in beginnings:
        assert any(query.strip().startswith(beginning) for query in shown), beginning
    assert [query for query in shown for owner in owners if owner in query] == []
