"""docs/reference/settings.md has all settings and options that the package reads, and no others."""

from __future__ import annotations

import ast
import inspect
import re
from typing import TYPE_CHECKING

import pytest

from django_distlock.backends.database import DatabaseBackend
from django_distlock.backends.memcached import MemcachedBackend
from django_distlock.backends.memory import MemoryBackend
from django_distlock.backends.redis import RedisBackend
from django_distlock.backends.server import ServerBackend
from django_distlock.backends.time_budget import validate_store_timeout
from django_distlock.exceptions import InvalidLockBackend
from tests.support.documentation import DOCUMENTS, rows, section
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_distlock.backends.base import BaseLockBackend

pytestmark = pytest.mark.once

PAGE = "reference/settings.md"
TEXT = (DOCUMENTS / PAGE).read_text("utf-8")
STORES: dict[str, type[BaseLockBackend]] = {
    "database": DatabaseBackend,
    "Redis": RedisBackend,
    "lock server": ServerBackend,
    "Memcached": MemcachedBackend,
    "memory": MemoryBackend,
}

OF_SEVERAL: dict[str, set[str]] = {"All stores": set(), "All stores but memory": {"memory"}}
"""Headings of options of several stores, with the stores that don't have them."""


def test_documented_stores_are_those_of_the_package() -> None:
    """By their dotted paths."""
    lines = re.findall(r"^\| ([\w ]+) \| `(django_distlock\.[\w.]+)` \|", TEXT, re.MULTILINE)
    assert [name for name, _ in lines] == [*STORES]
    for name, path in lines:
        assert path.rpartition(".")[2] == STORES[name].__name__
        assert f"{STORES[name].__module__}.".startswith(f"{path.rpartition('.')[0]}.")


def documented_options() -> dict[str, dict[str, str]]:
    """Return the options of each store, each with its default as the page writes it."""
    found: dict[str, dict[str, str]] = {name: {} for name in STORES}
    for part in re.split("^### ", section(PAGE, "Options"), flags=re.MULTILINE)[1:]:
        heading, table = part.split("\n", 1)
        options = dict(re.findall(r"^\| `(\w+)` \| `?(.+?)`? \|", table, re.MULTILINE))
        for name, each in found.items():
            if heading in OF_SEVERAL:
                each.update(options if name not in OF_SEVERAL[heading] else {})
            elif heading.lower() == name.lower():
                each.update(options)
    return found


@pytest.mark.parametrize("name", STORES)
def test_documented_options_are_those_of_the_store(name: str) -> None:
    """With their defaults: an option that is missing there is never found."""
    words = {"none": None, "required": inspect.Parameter.empty}
    documented = {
        option: words[text] if text in words else ast.literal_eval(text)
        for option, text in documented_options()[name].items()
    }
    parameters = inspect.signature(STORES[name]).parameters.values()
    assert documented == {each.name: each.default for each in parameters if each.name != "alias"}


def test_documented_limits_are_those_of_the_stores() -> None:
    """Of `ttl` and of `store_timeout`."""
    limits = re.findall(
        r"^\| ([\w, ]+) \| ([\d.]+)(?:; [\w ]+)? \| (\d*).* \| (yes|no) \|$", TEXT, 8
    )
    for names, shortest, longest, unlimited in limits:
        for name in names.split(", "):
            store = STORES[name]
            assert store.shortest_ttl == float(shortest)
            assert store.supports_unlimited_ttl == (unlimited == "yes")
            if longest:  # the lock server's is an option of its command
                assert store.longest_ttl == float(longest)
    assert {name for names, *_ in limits for name in names.split(", ")} == {*STORES}
    [found] = re.findall(r"seconds, from ([\d.]+) to (\d+)", TEXT)
    for seconds in map(float, found):
        assert validate_store_timeout("default", seconds) == seconds
    for seconds in (float(found[0]) / 2, float(found[1]) + 1):
        with pytest.raises(InvalidLockBackend):
            validate_store_timeout("default", seconds)


def constants(pattern: str) -> Iterator[str]:
    """Yield what the pattern finds in the code of the package."""
    for file in (ROOT / "django_distlock").rglob("*.py"):
        yield from re.findall(pattern, file.read_text("utf-8"))


def test_settings_that_the_package_reads_are_documented() -> None:
    """Its own and Django's, whether of the site or of a database."""
    read = {
        *constants(r"\bsettings\.([A-Z][A-Z_]+)\b"),
        *constants(r'getattr\(settings, "([A-Z_]+)"'),
        *constants(r'settings(?:_dict)?(?:\[|\.get\()"([A-Z_]+)"'),
    }
    # Where a database is, and how it is reached, is no matter of locks.
    read -= {"NAME", "OPTIONS", "TEST", "HOST", "PORT", "USER", "ENGINE", "CONN_MAX_AGE"}
    documented = {
        name
        for line in re.findall(r"^\| (`[A-Z].*?) \|", section(PAGE, "Django's settings"), 8)
        for name in re.findall("`([A-Z_]+)`", line)
    } | {*re.findall("^## ([A-Z_]+)$", TEXT, re.MULTILINE)}
    by_django = {"ATOMIC_REQUESTS", "DATABASE_ROUTERS", "DATABASES"}
    assert documented - by_django == read - by_django


def test_environment_variables_that_the_package_reads_are_documented() -> None:
    """But those of the test kit, which are pytest's."""
    read = {*constants(r'environ\.get\(f?"([A-Z_]+)"')} - {"PYTEST_CURRENT_TEST"}
    documented = {
        name
        for row in rows(section(PAGE, "Environment variables"))
        for name in re.findall("`([A-Z_]+[A-Z])`", row[0])
    }
    assert documented == read
