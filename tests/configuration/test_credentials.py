"""Wrong settings are reported without any part of a password."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
import redis
from django.test import override_settings

from django_distlock import InvalidLockBackend, LockBackendUnavailable, acquire_lock, lock_backends
from django_distlock.checks import check_deployment, check_lock_backends
from tests.support.databases import committed
from tests.support.error_pages import page_of

REDIS = "django_distlock.backends.redis.RedisBackend"
SERVER = "django_distlock.backends.server.ServerBackend"
LIBRARIES = ["django_redis.cache.RedisCache", "django.core.cache.backends.redis.RedisCache"]

SPECIAL = "#/?@[]:%,;"
"""Characters that end a part of a URL, or of a list of them; and some that don't."""
PARTS = ("s3cr", "etpw", "w0rd")
URLS = [
    *(f"redis://:{x.join(PARTS)}@127.0.0.1:1/0" for x in SPECIAL),
    *(f"rediss://user:{x.join(PARTS)}@127.0.0.1:1/0" for x in "#/?["),
    *(f"unix://user:{x.join(PARTS)}@/nowhere.sock?db=1" for x in "#/?["),
    f"redis:/:{''.join(PARTS)}@127.0.0.1",
    f"redis//:{''.join(PARTS)}@127.0.0.1",
    f"127.0.0.1:1/{''.join(PARTS)}@",
    f"redis://:{''.join(PARTS)}@127.0.0.1:port/0",
    f"redis://:{'/@'.join(PARTS)}@127.0.0.1:1/0",
    f"redis://:{'.'.join(PARTS)}@127.0.0.1:1/0",
    f"redis://:s3cr\u2100{'etpw'}@127.0.0.1:1/0",
]

made: list[str] = []


def client_of_url() -> redis.Redis:
    """Return a client of a URL in the environment, as a site makes it."""
    return redis.Redis.from_url(made[-1])


def reported(distlock: dict[str, Any], **settings: Any) -> list[str]:
    """Return all messages about this DISTLOCK: of the checks, at use, and on the error's page."""
    said = []
    with override_settings(DISTLOCK={"locks": distlock}, **settings):
        said += [str(each) for each in (*check_lock_backends(), *check_deployment())]
        for ask in (lambda: lock_backends["locks"], lambda: acquire_lock("x", backend="locks")):
            try:
                ask()
            except (InvalidLockBackend, LockBackendUnavailable) as error:
                frames = error.__traceback__
                while frames and frames.tb_frame.f_code.co_filename == __file__:
                    frames = frames.tb_next  # not this file's frames, which have the password
                error = error.with_traceback(frames)
                said += [repr(error), *traceback.format_exception(error), page_of(error)]
    return said


def assert_shows_nothing(said: list[str]) -> None:
    """Check that no part of the password is in the messages."""
    for text in said:
        assert not [part for part in PARTS if part in text], text


@committed
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("url", [*URLS, "redis://:s3cr@etpw/w0rd@127.0.0.1:1/0"])
def test_malformed_url_of_a_cache_is_reported_without_its_password(
    url: str, as_list: bool, library: str
) -> None:
    """Whatever part the library would have parsed. A readable URL causes no error."""
    location = [url, "redis://127.0.0.1:1"] if as_list else url
    cache = {"BACKEND": library, "LOCATION": location}
    said = reported({"BACKEND": REDIS, "OPTIONS": {"cache": "locks"}}, CACHES={"locks": cache})
    assert said
    assert_shows_nothing(said)


def test_unreadable_url_is_reported_with_the_remedy() -> None:
    """The remedy is to percent-encode it, which is not obvious."""
    cache = {"BACKEND": LIBRARIES[0], "LOCATION": "redis://:pa#ss@127.0.0.1"}
    said = reported({"BACKEND": REDIS, "OPTIONS": {"cache": "locks"}}, CACHES={"locks": cache})
    assert said[0].startswith(
        "?: (distlock.E001) DISTLOCK['locks']: cache 'locks': in LOCATION, a URL can't be read. "
        "It begins with redis://, rediss:// or unix://, and special characters in its user and "
    )
    assert "urllib.parse.quote(password, safe='')" in said[0]


@committed
@pytest.mark.parametrize("url", URLS)
def test_malformed_url_of_a_client_is_reported_without_its_password(url: str) -> None:
    """The site's own code gives that URL to redis-py."""
    made.append(url)
    said = reported({"BACKEND": REDIS, "OPTIONS": {"client": f"{__name__}.client_of_url"}})
    assert said
    assert_shows_nothing(said)


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    ("backend", "option"),
    [
        (REDIS, "cache"),
        (REDIS, "client"),
        (SERVER, "address"),
        ("django_distlock.backends.database.DatabaseBackend", "using"),
        ("", ""),
    ],
)
def test_url_in_the_wrong_place_is_reported_without_its_password(
    backend: str, option: str, url: str
) -> None:
    """In the place of an alias, a path, or a lock server's address."""
    options = {option: url, **({"secret": "".join(PARTS) * 2} if backend == SERVER else {})}
    said = reported({"BACKEND": backend, "OPTIONS": options} if backend else {"BACKEND": url})
    assert said
    if not (option == "address" and url.startswith("unix:")):  # a path, as a lock server has it
        assert_shows_nothing(said)


@pytest.mark.parametrize(
    "options",
    [
        {"secret": "".join(PARTS)},
        {"secret": "".join(PARTS), "tls": "no"},
        {"secret": ["".join(PARTS)]},
        {"secret": "".join(PARTS) * 2, "tiemout": 5},
        {"secret": "".join(PARTS) * 2, "address": 7433},
        {"secret": "".join(PARTS) * 2, "secret_file": "/nowhere"},
        {"secret": "".join(PARTS) * 2, "ttl": "no"},
    ],
)
def test_wrong_options_of_a_lock_server_are_reported_without_its_secret(
    options: dict[str, Any],
) -> None:
    """The secret is neither in a text nor in a variable of the traceback's frames."""
    said = reported({"BACKEND": SERVER, "OPTIONS": options})
    assert said
    assert_shows_nothing(said)
