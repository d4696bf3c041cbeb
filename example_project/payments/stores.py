"""The store of the locks: the option `--store`, for the processes that a command starts."""

import os
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from urllib.parse import urlsplit

from django.core.management import CommandError

NAMES = {"database": "the database", "redis": "Redis", "server": "a lock server"}


def add_option(parser: ArgumentParser) -> None:
    """Add `--store`."""
    parser.add_argument(
        "--store",
        choices=list(NAMES),
        default="database",
        help="where the locks are kept, default: %(default)s. redis means the one at REDIS_URL "
        "(redis://localhost:6379/1), or, if that is not set, a redis-server that is started and "
        "stopped along with this; install it by: apt install redis-server. server means a lock "
        "server (run_lock_server) that is started and stopped likewise. The payments are in the "
        "database in any case",
    )


@contextmanager
def locks_kept_in(store: str) -> Iterator[str | None]:
    """Make the processes that are started in the block keep locks there. Yield the place.

    None stands for the database, as in settings.py.
    """
    with _running(store) as place, _environment(EXAMPLE_STORE=store):
        yield place


def _running(store: str) -> AbstractContextManager[str | None]:
    if store == "redis":
        return _redis()
    return _lock_server() if store == "server" else nullcontext()


# A command that is called by another one finds the variables already set.


@contextmanager
def _redis() -> Iterator[str]:
    try:
        import django_redis  # noqa: F401
    except ImportError:
        raise CommandError("--store redis needs a package: pip install django-redis.") from None
    from payments import redis_server

    if url := os.environ.get("REDIS_URL"):
        redis_server.check(url)
        yield _without_password(url)
    else:
        with redis_server.running() as url, _environment(REDIS_URL=url):
            yield url


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


@contextmanager
def _lock_server() -> Iterator[str]:
    from payments import lock_server

    if address := os.environ.get("EXAMPLE_LOCK_SERVER"):
        yield address
    else:
        with (
            lock_server.running() as options,
            _environment(
                EXAMPLE_LOCK_SERVER=options["address"],
                EXAMPLE_LOCK_SERVER_SECRET_FILE=options["secret_file"],
            ),
        ):
            yield options["address"]


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set variables for the processes that are started in the block."""
    previous = os.environ.copy()
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables.keys() - previous.keys():
            del os.environ[name]
        os.environ.update(previous)
