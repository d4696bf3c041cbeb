"""How long the admin's pages of locks take with many locks, compared with a hundred.

One store has few locks and one has many, on the same server. Their pages take turns, in random
order, through Django's test client: with session, permissions and template, without a network. The
ratio is taken within a round; median and quartiles are over the rounds.
"""

from __future__ import annotations

import argparse
import logging
import random
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test import override_settings
from django.urls import path
from rich.console import Console
from rich.table import Table

from benchmarks.databases import STARTERS
from benchmarks.pair import Spread
from tests.support.ports import HOST
from tests.support.redis_servers import start_redis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.test import Client

FEW: Final = 100
MANY: Final = {"postgresql": 1_000_000, "mariadb": 1_000_000, "sqlite": 1_000_000, "redis": 10_000}
BATCH: Final = 10_000
LIST: Final = "/admin/distlock/lock/?store={store}"
PAGES: Final = {
    "list": LIST,
    "refresh": LIST,
    "page 5": LIST + "&p=5",
    "stale": LIST + "&state=stale",
    "search": LIST + "&q=lock:0000",
    "search, no hit": LIST + "&q=nothing",
    "a lock": "/admin/distlock/lock/{store}_3Alock:0000042/change/",
}

console = Console()
urlpatterns: list[Any] = []


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=MANY, default="postgresql")
    parser.add_argument("--locks", type=int, help="default: a million, 10,000 in Redis")
    parser.add_argument(
        "--released", action="store_true", help="all but a hundred rows are released locks"
    )
    parser.add_argument("--rounds", type=int, default=20, help="default: %(default)s")
    options = parser.parse_args()
    many = options.locks or MANY[options.store]
    with site(options.store):
        fill(options.store, "few", FEW, FEW)
        fill(options.store, "many", many, FEW if options.released else many)
        console.print(f"{options.store}, Django {django.__version__}, {many:,} locks")
        console.print(measure(options.rounds))


@contextmanager
def site(store: str) -> Iterator[None]:
    """Run the server, and an admin site whose users are in a file of their own."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="distlock-admin-")))
        entries = {name: sqlite(directory / name) for name in ("default", "few", "many")}
        caches: dict[str, Any] = {}
        if store in STARTERS:
            server = stack.enter_context(STARTERS[store](durable=True))
            entries |= {"few": server.settings, "many": server.settings | {"NAME": "many"}}
        if store == "redis":
            port = stack.enter_context(start_redis()).port
            redis = "django.core.cache.backends.redis.RedisCache"
            caches = {
                name: {"BACKEND": redis, "LOCATION": f"redis://{HOST}:{port}/{number}"}
                for number, name in enumerate(("default", "few", "many"))
            }
        configure(store, entries, caches)
        if store in STARTERS:
            with connections["few"].cursor() as cursor:
                cursor.execute("CREATE DATABASE many")
        for alias in ["default"] if store == "redis" else entries:
            call_command("migrate", database=alias, verbosity=0)
        try:
            yield
        finally:
            connections.close_all()


def sqlite(file: Path) -> dict[str, Any]:
    """Return the settings of a file."""
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file)}


def configure(store: str, databases: dict[str, Any], caches: dict[str, Any]) -> None:
    """Set Django up for the store's locks in "few" and in "many"."""
    backend = "redis.RedisBackend" if store == "redis" else "database.DatabaseBackend"
    kept_in = "cache" if store == "redis" else "using"
    contrib = ("admin", "auth", "contenttypes", "messages", "sessions", "staticfiles")
    middleware = (
        "sessions.middleware.SessionMiddleware",
        "auth.middleware.AuthenticationMiddleware",
        "messages.middleware.MessageMiddleware",
    )
    processors = ("auth.context_processors.auth", "messages.context_processors.messages")
    settings.configure(
        DATABASES=databases,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        DISTLOCK={
            name: {
                "BACKEND": f"django_distlock.backends.{backend}",
                "OPTIONS": {kept_in: name, "store_timeout": 30},
            }
            for name in ("few", "many")
        },
        INSTALLED_APPS=[*(f"django.contrib.{app}" for app in contrib), "django_distlock"],
        MIDDLEWARE=[f"django.contrib.{each}" for each in middleware],
        ROOT_URLCONF=__name__,
        SECRET_KEY="benchmark",
        STATIC_URL="static/",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        *(f"django.contrib.{each}" for each in processors),
                    ]
                },
            }
        ],
        USE_TZ=True,
        **({"CACHES": caches} if caches else {}),
    )
    django.setup()
    from django.contrib import admin

    urlpatterns.append(path("admin/", admin.site.urls))


def fill(store: str, name: str, number: int, held: int) -> None:
    """Make locks, the first of which are held for a day and the others released."""
    if store == "redis":
        from django_distlock import lock_backends

        for at in range(number):
            lock_backends[name].acquire(
                semaphore(at), f"{at:032}", 86400, "task (web1 pid 7 MainThread)"
            )
        return
    from django_distlock.models import Lock

    now = int(time.time() * 1e6)
    from django_distlock.fields import to_datetime

    for begun in range(0, number, BATCH):
        Lock.objects.using(name).bulk_create(
            Lock(
                semaphore=semaphore(at),
                owner=f"{at:032}" if at < held else "",
                token=now + at,
                holder="task (web1 pid 7 MainThread)",
                acquired_at=to_datetime(now),
                expires_at=to_datetime(now + (86400 * 1_000_000 if at < held else -1_000_000)),
            )
            for at in range(begun, min(begun + BATCH, number))
        )
    vendor = connections[name].vendor
    with connections[name].cursor() as cursor:
        cursor.execute(
            "ANALYZE TABLE distlock_lock" if vendor == "mysql" else "ANALYZE distlock_lock"
        )


def semaphore(number: int) -> str:
    """Return the name of a lock."""
    return f"lock:{number:07}"


def measure(rounds: int) -> Table:
    """Visit the pages in turns."""
    client = operator()
    table = Table("page", "queries", "100 locks, ms", "many locks, ms", "ratio", "quartiles")
    for name, address in PAGES.items():
        visit(client, name, address, "few")
        visit(client, name, address, "many")
        with QueryCounter() as queries:
            visit(client, name, address, "many")
        times: list[dict[str, float]] = []
        for _ in range(rounds):
            order = random.sample(["few", "many"], 2)
            times.append({store: visit(client, name, address, store) for store in order})
        ratio = Spread.of([each["many"] / each["few"] for each in times]).cells(1, 2)
        few, many = (
            Spread.of([each[store] for each in times]).cells(1000, 1)[0]
            for store in ("few", "many")
        )
        table.add_row(name, str(queries.count), few, many, ratio[0], " to ".join(ratio[1:]))
    return table


def operator() -> Client:
    """Return the browser of a member of staff with the two permissions."""
    from django.contrib.auth.models import Permission, User
    from django.test import Client

    user = User.objects.create_user("operator", is_staff=True)
    codenames = ("view_lock", "force_release_lock")
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


def visit(client: Client, name: str, address: str, store: str) -> float:
    """Return the seconds that the page took."""
    headers = {"X-Distlock-Refresh": "1"} if name == "refresh" else {}
    begun = time.perf_counter()
    response = client.get(address.format(store=store), headers=headers)
    seconds = time.perf_counter() - begun
    assert response.status_code == 200
    assert "unreachable" not in response.content.decode()
    return seconds


class QueryCounter(logging.Handler):
    """Counts the queries in the block, on the locks' own connections, too."""

    logger = logging.getLogger("django.db.backends")

    def __enter__(self) -> Self:
        self.count = 0
        self.debug = override_settings(DEBUG=True)
        self.debug.enable()
        self.logger.addHandler(self)
        self.logger.setLevel(logging.DEBUG)
        return self

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1

    def __exit__(self, *exception: object) -> None:
        self.logger.removeHandler(self)
        self.logger.setLevel(logging.NOTSET)
        self.debug.disable()


if __name__ == "__main__":
    main()
