"""The code in docs/coming-from works, that of the other libraries, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

LIBRARIES = ("celery_once", "db_mutex", "django_redis", "pglock", "psycopg", "redis_lock")
for library in ("sybil", "yaml", *LIBRARIES):
    pytest.importorskip(library)

from celery import Celery  # noqa: E402
from celery.app import app_or_default  # noqa: E402
from celery_once import AlreadyQueued, QueueOnce  # noqa: E402
from celery_once.backends import Redis as OnceInRedis  # noqa: E402
from db_mutex.models import DBMutex  # noqa: E402
from django.db import connections  # noqa: E402
from redis import Redis  # noqa: E402

from tests.documentation.elsewhere import RUN_ELSEWHERE  # noqa: E402
from tests.documentation.pages import run  # noqa: E402
from tests.settings import STORE_TIMEOUT  # noqa: E402
from tests.support.documentation import DOCUMENTS  # noqa: E402
from tests.support.redis_servers import place  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Server

pytestmark = [
    pytest.mark.once,
    pytest.mark.needs("postgresql", "redis"),
    pytest.mark.django_db(transaction=True, databases=["default", "postgresql"]),
]

PAGES = [
    "coming-from/celery-once.md",
    "coming-from/django-db-mutex.md",
    "coming-from/django-pglock.md",
    "coming-from/django-redis.md",
    "coming-from/index.md",
    "coming-from/python-redis-lock.md",
    "coming-from/redis-py.md",
]


@pytest.fixture(scope="module")
def url(spare_redis: Server) -> str:
    """Return the address of a Redis server."""
    return "redis://{}:{}/0".format(*place(spare_redis))


@pytest.fixture(scope="module")
def celery(url: str) -> Iterator[Celery]:
    """Configure celery-once, and run tasks at once, in the process that sends them."""
    previous = app_or_default()
    app = Celery("shop", set_as_current=True)
    app.conf.task_always_eager = True
    app.conf.ONCE = {"backend": "celery_once.backends.Redis", "settings": {"url": url}}
    yield app
    app.close()
    previous.set_current()


@pytest.fixture
def default_store(settings: Any, url: str, celery: Celery) -> Iterator[None]:
    """Have PostgreSQL as the database, Redis as a cache, and the locks in the database."""
    settings.REDIS_URL = url
    settings.CACHES = {"locks": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url}}
    settings.DISTLOCK = {
        "default": {
            "BACKEND": "django_distlock.backends.database.DatabaseBackend",
            "OPTIONS": {"using": "postgresql", "store_timeout": STORE_TIMEOUT},
        }
    }
    default = connections["default"]
    connections["default"] = connections["postgresql"]
    yield
    connections["default"] = default


@pytest.fixture
def mutexes(shop: None) -> Iterator[None]:
    """Make django-db-mutex's table, as its migrations do."""
    with connections["default"].schema_editor() as editor:
        editor.create_model(DBMutex)
    yield
    with connections["default"].schema_editor() as editor:
        editor.delete_model(DBMutex)


@pytest.mark.usefixtures("shop", "mutexes")
@pytest.mark.parametrize("page", PAGES)
def test_code_of_a_page_works(page: str) -> None:
    """Before and after: the library's own code does there what the page's does here."""
    assert RUN_ELSEWHERE[page] == "tests/documentation/test_coming_from.py"
    run(DOCUMENTS / page)


def test_celery_once_locks_what_is_in_the_queue(celery: Celery) -> None:
    """delay() raises, or gives a rejected result. A direct call asks for no lock."""
    seen: list[Any] = []

    @celery.task(base=QueueOnce, once={"keys": ["customer_id"]})  # type: ignore[untyped-decorator]
    def collect(customer_id: int, *, again: bool = True) -> None:
        if again:
            with pytest.raises(AlreadyQueued):
                collect.delay(customer_id, again=False)
            rejected = collect.apply_async([customer_id], once={"graceful": True})
            collect(customer_id, again=False)
            seen.append((rejected.state, rejected.result))

    assert collect.default_timeout == 60 * 60
    collect.delay(1234).get()
    assert seen == [("REJECTED", None)]


def test_celery_once_frees_the_lock_of_the_next_task(url: str) -> None:
    """The end of a task deletes the key, even if the next task locked it."""
    backend = OnceInRedis({"url": url})
    with Redis.from_url(url) as client:
        backend.raise_or_lock("qo_collect", timeout=3600)
        client.delete("qo_collect")  # the task took longer than its timeout
        backend.raise_or_lock("qo_collect", timeout=3600)
        backend.clear_lock("qo_collect")
        assert not client.exists("qo_collect")
