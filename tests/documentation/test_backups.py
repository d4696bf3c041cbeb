"""docs/how-to/back-up-and-restore.md: what a restore of each store brings back."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

for library in ("sybil", "yaml"):
    pytest.importorskip(library)

from django_distlock import lock_backends  # noqa: E402
from django_distlock.backends.database import connections as own  # noqa: E402
from tests.support.databases import another_database, committed  # noqa: E402
from tests.support.documentation import commands, shown  # noqa: E402
from tests.support.holders import acquire, held_in  # noqa: E402
from tests.support.installed import find  # noqa: E402
from tests.support.lock_servers import locks_of, start_careful_lock_server, state_file  # noqa: E402
from tests.support.ports import HOST  # noqa: E402
from tests.support.redis_servers import connect, start_redis  # noqa: E402

PAGE = "how-to/back-up-and-restore.md"
POSTGRESQL = "postgresql"
pytestmark = [pytest.mark.once, committed]


def command(name: str) -> str:
    """Return the page's command that begins with this word."""
    found = [line for block in shown(PAGE, "console") for line, _ in commands(block)]
    [line] = [line for line in found if line.split()[0] == name]
    return line


def run(line: str, directory: Path, **variables: str) -> None:
    """Run a command of PostgreSQL or Redis; it must print nothing but OK."""
    path = f"{Path(find('initdb')).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=directory,
        env=os.environ | {"PATH": path} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) in [(0, ""), (0, "OK\n")]


@pytest.mark.needs("postgresql")
def test_dump_of_postgresql_brings_back_held_locks_and_pauses(tmp_path: Path) -> None:
    """A lock that was granted later is lost. The page's dump and TRUNCATE bring back nothing."""
    entry = connections.settings[POSTGRESQL]
    place = {"PGHOST": HOST, "PGPORT": str(entry["PORT"]), "PGUSER": entry["USER"]}
    store: Any = lock_backends[POSTGRESQL]
    dump, restore = (
        command(name).replace(" shop", " another") for name in ("pg_dump", "pg_restore")
    )
    whole = dump.replace("--exclude-table-data 'distlock_*'", "")
    assert whole != dump
    [truncate] = shown(PAGE, "sql")
    with another_database(POSTGRESQL):
        own.close_own_connections()
        leases = [
            acquire(POSTGRESQL, "with a ttl"),
            acquire(POSTGRESQL, "without an end", ttl=None),
        ]
        store.pause("deploy:")
        run(whole, tmp_path, **place)
        for lease in leases:
            lease.release()
        later = acquire(POSTGRESQL, "later", renew=False)
        run(restore, tmp_path, **place)
        own.close_own_connections()  # the tables are others
        assert held_in(POSTGRESQL) == ["with a ttl", "without an end"]
        assert [pause.prefix for pause in store.pauses()] == ["deploy:"]
        assert not later.release()
        with connections[POSTGRESQL].cursor() as cursor:
            cursor.execute(truncate)
        assert (held_in(POSTGRESQL), store.pauses()) == ([], [])
        successor = acquire(POSTGRESQL, "with a ttl", renew=False)
        assert successor.token
        assert leases[0].token
        assert successor.token > leases[0].token
        run(dump, tmp_path, **place)
        run(restore, tmp_path, **place)
        own.close_own_connections()
        assert held_in(POSTGRESQL) == []
        assert not successor.release()
        own.close_own_connections()
        connections[POSTGRESQL].close()


@pytest.mark.needs("redis")
def test_snapshot_of_redis_brings_back_its_locks(tmp_path: Path, settings: Any) -> None:
    """And pauses; what was granted later is forgotten."""
    with start_redis() as server:
        location = f"redis://{HOST}:{server.port}/1"
        settings.CACHES = {
            "locks": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": location}
        }
        path = "django_distlock.backends.redis.RedisBackend"
        settings.DISTLOCK = {"default": {"BACKEND": path, "OPTIONS": {"cache": "locks"}}}
        store: Any = lock_backends["default"]
        leases = [
            acquire("default", "with a ttl"),
            acquire("default", "without an end", ttl=None),
        ]
        store.pause("deploy:")
        with connect(server) as client:
            client.save()
        for lease in leases:
            lease.release()
        later = acquire("default", "later", renew=False)
        store.close()
        server.kill()
        server.start()
        assert held_in("default") == ["with a ttl", "without an end"]
        assert [pause.prefix for pause in store.pauses()] == ["deploy:"]
        successor = acquire("default", "later")
        assert not later.release()
        successor.release()
        flush = command("redis-cli").replace("redis-cli", f"redis-cli -h {HOST} -p {server.port}")
        run(flush, tmp_path)
        assert (held_in("default"), store.pauses()) == ([], [])
        store.close()


def test_old_state_file_of_a_lock_server_lets_it_grant_a_held_lock() -> None:
    """So the page forbids it. Without the file nothing is granted at first."""
    with start_careful_lock_server() as server, locks_of(server) as store:
        server.stop()
        old = state_file(server.directory).read_bytes()
        server.start()
        lease = acquire("lock_server", renew=False)
        store.close()
        server.kill()
        state_file(server.directory).write_bytes(old)
        server.start()
        second = acquire("lock_server")
        assert second.release()
        assert not lease.release()
