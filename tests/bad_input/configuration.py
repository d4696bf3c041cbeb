"""Wrong settings: DISTLOCK itself, and the options of each store."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext_lazy

from django_distlock import InvalidLockBackend
from django_distlock.arguments import show
from django_distlock.conf import LockBackendHandler
from django_distlock.exceptions import UnencryptedServer
from django_distlock.server.limits import Limits
from tests.bad_input.table import Row
from tests.support.entries import LONG

if TYPE_CHECKING:
    from collections.abc import Callable

LAZY: Any = gettext_lazy("default")
SECRET = "x" * 40
PATHS = {
    "database": "django_distlock.backends.database.DatabaseBackend",
    "memory": "django_distlock.backends.memory.MemoryBackend",
    "redis": "django_distlock.backends.redis.RedisBackend",
    "memcached": "django_distlock.backends.memcached.MemcachedBackend",
    "server": "django_distlock.backends.server.ServerBackend",
}
NEEDED: dict[str, dict[str, Any]] = {
    "redis": {"cache": "default"},
    "memcached": {"cache": "default"},
    "server": {"secret": SECRET},
}
LIMITED = PATHS.keys() - {"memory"}
"""Those with a time limit."""

NO_SETTINGS: list[Any] = [[], "default", 0, ()]
NO_ENTRIES: list[Any] = [{}, {"OPTIONS": {}}, {"BACKEND": None}, None, PATHS["memory"], []]


def configured(setting: Any, alias: Any = "jobs") -> Callable[[], Any]:
    """Return a call that makes the store of this alias."""
    return lambda: LockBackendHandler(setting)[alias]


def entry(backend: Any, **more: Any) -> Callable[[], Any]:
    """Return a call that makes a store of this setting."""
    return configured({"jobs": {"BACKEND": backend, **more}})


def options(store: str, **given: Any) -> Callable[[], Any]:
    """Return a call that makes a store with these options, beside those that it needs."""
    return entry(PATHS[store], OPTIONS={**NEEDED.get(store, {}), **given})


def server(**given: Any) -> Callable[[], Any]:
    """Return a call that makes a lock server's backend with nothing but these options."""
    return entry(PATHS["server"], OPTIONS=given)


def limits(**given: Any) -> Callable[[], Any]:
    """Return a call that sets these limits of a lock server."""
    return lambda: Limits(**given)


def row(what: str, call: Callable[[], Any], says: str) -> Row:
    """Return a row about DISTLOCK["jobs"]."""
    return Row(what, call, InvalidLockBackend, rf"^DISTLOCK\['jobs'\]: .*{says}")


SETTINGS = [
    *(
        Row(f"DISTLOCK = {setting!r}", configured(setting), InvalidLockBackend, "a dict of aliases")
        for setting in NO_SETTINGS
    ),
    *(
        Row(
            f"alias {alias!r}",
            configured({alias: {"BACKEND": PATHS["memory"]}}),
            InvalidLockBackend,
            "^DISTLOCK: an alias is a str, not ",
        )
        for alias in (5, None, ("a", "b"), LAZY)
    ),
    row("no alias", configured({}), "not configured; DISTLOCK has no alias"),
    row("other alias", configured({"job": {}}), "not configured; DISTLOCK has 'job'"),
    *(
        row(f"entry {value!r:.30}", configured({"jobs": value}), "a dict with a BACKEND")
        for value in NO_ENTRIES
    ),
    row("other keys", entry(PATHS["memory"], ttl=5, LOCATION="x"), "unknown 'LOCATION', 'ttl'; it"),
    *(
        row(f"BACKEND {path!r}", entry(path), "could not import BACKEND")
        for path in ("nowhere.Backend", "django_distlock.Nothing", "Backend", "", ".x", "..odd.X")
    ),
    *(
        row(f"BACKEND {path!r}", entry(path), "is not a BaseLockBackend")
        for path in ("collections.OrderedDict", "django_distlock.acquire_lock")
    ),
    row("a cache", entry("django.core.cache.backends.locmem.LocMemCache"), r"OPTIONS\['cache'\]"),
    row("an abstract store", entry("django_distlock.backends.base.BaseLockBackend"), "is abstract"),
    *(
        row(f"OPTIONS {value!r}", entry(PATHS["memory"], OPTIONS=value), "OPTIONS must be a dict")
        for value in (None, ["ttl"], "ttl")
    ),
]
DURATIONS = [
    *(
        row(f"{store}: {name}={show(value):.20}", options(store, **{name: value}), says)
        for store in PATHS
        for name, says, values in (
            (
                "ttl",
                "ttl is .*, but must be from .* seconds",
                (math.nan, math.inf, -math.inf, -1, 0, 10**400, LONG),
            ),
            ("ttl", "ttl is a number of seconds", ("60", True, [60], timedelta(1), LAZY)),
            (
                "store_timeout",
                "store_timeout is .*, but must be from 0.01 to 60 seconds",
                (math.nan, math.inf, -1, 0, 61, 10**400, LONG),
            ),
            (
                "store_timeout",
                "store_timeout is a number of seconds, not ",
                ("2", None, True, [2], LAZY),
            ),
        )
        for value in values
        if name == "ttl" or store in LIMITED
    ),
    row("memory: store_timeout", options("memory", store_timeout=2), "unexpected .* takes ttl, "),
    row("memcached: no ttl", options("memcached", ttl=None), "has no unlimited ttl; give seconds"),
    row("server: no ttl", options("server", ttl=None), "has no unlimited ttl; give seconds"),
    row("memcached: half seconds", options("memcached", ttl=2.5), "whole seconds: give 3"),
    row("memcached: a month", options("memcached", ttl=31 * 86_400), "from 1 to 2591998 seconds"),
]
SWITCHES = [
    row(f"{store}: {name}={value!r:.20}", options(store, **{name: value}), f"{name} is True or Fal")
    for store in PATHS
    for name in ("guard_commits", "events")
    for value in ("no", 0, None, LAZY)
]
OPTIONS = [
    *(
        row(
            f"{store}: {name}", options(store, **{name: 1}), f"unexpected.*'{name}'; .* takes .*ttl"
        )
        for store in PATHS
        for name in ("timeout", "TTL", "LOCATION")
    ),
    *(row(f"{store}: alias", options(store, alias="x"), "'alias'") for store in PATHS),
    row(
        "database: using=[]", options("database", using=["default"]), "using is a str, .* DATABASES"
    ),
    row(
        "database: using=None", options("database", using=None), "using is a str, .*, not NoneType"
    ),
    row("database: using=_()", options("database", using=LAZY), "using is a str, .*, not a lazy"),
    row("database: no such", options("database", using="x"), "no database 'x'; DATABASES has: def"),
    *(
        row(
            f"database: connections={n!r}",
            options("database", connections=n),
            f"connections {says}",
        )
        for says, numbers in (
            ("is a whole number, not ", ("2", True, None, 1.5)),
            ("is .*, but must be from 1 to", (0, -1)),
        )
        for n in numbers
    ),
    *(
        row(f"{store}: cache={value!r:.20}", options(store, cache=value), f"cache is a str, {says}")
        for store in ("redis", "memcached")
        for value, says in ((["a"], "an alias in CACHES, not list"), (LAZY, ".*, not a lazy text"))
    ),
    row("redis: neither", entry(PATHS["redis"]), "cache.*client"),
    row("redis: both", options("redis", client="a.b"), "cache.*client"),
    row(
        "redis: client=[]",
        options("redis", cache=None, client=["a.b"]),
        "client is a str, a dotted",
    ),
    row("redis: client=nowhere", options("redis", cache=None, client="no.where"), "no.where"),
    row(
        "memcached: cache=None",
        options("memcached", cache=None),
        "cache is a str, .*, not NoneType",
    ),
    row("memcached: no cache", entry(PATHS["memcached"]), "missing a required .*'cache'; .* takes"),
    *(
        row(f"{store}: no such cache", options(store, cache="nowhere"), "nowhere.*CACHES")
        for store in ("redis", "memcached")
    ),
    *(
        row(f"{store}: another kind of cache", options(store, cache="default"), "LocMem")
        for store in ("redis", "memcached")
    ),
]
SERVERS = [
    row("server: no secret", server(), "give either secret, a text, or secret_file"),
    row(
        "server: two", server(secret=SECRET, secret_file="a"), "give either secret, a text, or sec"
    ),
    row("server: short", server(secret="short"), "the secret has 5 bytes, but needs 16"),
    row("server: secret=5", server(secret=5), "secret is a text"),
    row("server: secret=[]", server(secret=[SECRET]), "secret is a text"),
    row("server: secret_file=/nowhere", server(secret_file="/nowhere"), "No such file"),
    row("server: secret_file=/", server(secret_file="/"), "Is a directory"),
    row("server: secret_file=5", server(secret_file=5), "secret_file is a str, a path, not int"),
    *(
        row(f"server: address={value!r}", options("server", address=value), says)
        for value, says in (
            (7433, "an address is a text such as"),
            (["127.0.0.1:7433"], "an address is a text such as"),
            ("localhost", "'localhost' is not \"host:port\""),
            ("", 'is not "host:port"'),
            ("localhost:x", "the port is a number from 1 to 65535"),
            ("localhost:70000", "the port is a number from 1 to 65535"),
            ("::1:7433", "needs brackets"),
            ("unix:", "can't be the path of a unix socket"),
            ("a\0b:1", "can't be the name of a host"),
        )
    ),
    Row(
        "server: address='10.0.0.1:7433'",
        options("server", address="10.0.0.1:7433"),
        UnencryptedServer,
        r"^DISTLOCK\['jobs'\]: 10.0.0.1:7433 is not on this machine: give tls, or tls_ca",
    ),
    row("server: tls='no'", options("server", tls="no"), "tls is True or False, not 'no'"),
    row("server: tls=0", options("server", tls=0), "tls is True or False, not 0"),
    row("server: tls_ca=5", options("server", tls_ca=5), "tls_ca is a str, a path, not int"),
    row("server: tls_ca=/nowhere", options("server", tls_ca="/nowhere"), "can't be used"),
    row("server: tls_ca=this", options("server", tls_ca=__file__), "can't be used: .*NO_CERT"),
    row("server: unix tls", options("server", address="unix:/a", tls=True), "needs no TLS"),
    row("server: unix CA", options("server", address="unix:/a", tls_ca="/a"), "needs no TLS"),
    row(
        "server: release_on_disconnect='no'",
        options("server", release_on_disconnect="no"),
        "release_on_disconnect is True or False",
    ),
]
LIMITS = [
    *(
        Row(
            f"server's {name}={value!r}",
            limits(**{name: value}),
            ValueError,
            f"^{name} is {value!r}, but must be more than 0, and at most 100000000",
        )
        for name in ("max_ttl", "max_locks", "idle")
        for value in (math.nan, math.inf, -1, 0, 10**9)
    ),
    Row(
        "server's max_frame=1",
        limits(max_frame=1),
        ValueError,
        "^max_frame is 1, but must be at least 500: a handshake is as long",
    ),
]
ROWS = [*LIMITS, *SETTINGS, *DURATIONS, *SWITCHES, *OPTIONS, *SERVERS]
