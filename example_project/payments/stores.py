"""Where the locks are kept: what `--store` says, for the processes that a command starts."""

import os
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from django.core.management import CommandError


def add_option(parser: ArgumentParser) -> None:
    """Add `--store`."""
    parser.add_argument(
        "--store",
        choices=["database", "redis"],
        default="database",
        help="where the locks are kept, default: %(default)s. redis means the one at REDIS_URL "
        "(redis://localhost:6379/1), or, if that is not set, a redis-server that is started and "
        "stopped along with this; install it by: apt install redis-server. The payments are in "
        "the database in any case",
    )


@contextmanager
def locks_kept_in(store: str) -> Iterator[str | None]:
    """Let the processes that are started in the block keep locks there. Yield where, if not here.

    None is the database, of which settings.py knows by itself.
    """
    if store == "database":
        yield None
        return
    try:
        import django_redis  # noqa: F401
    except ImportError:
        raise CommandError("--store redis needs a package: pip install django-redis.") from None
    from payments import redis_server

    # A command that is called by another one finds the URL that this one set.
    if url := os.environ.get("REDIS_URL"):
        redis_server.check(url)
        with _environment(EXAMPLE_STORE=store):
            yield _without_password(url)
    else:
        with redis_server.running() as url, _environment(EXAMPLE_STORE=store, REDIS_URL=url):
            yield url


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


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
