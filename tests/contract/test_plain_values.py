"""Stores get plain values: methods of subclasses of str and numbers are never used."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import pytest
from django.test import override_settings

from django_distlock import (
    InvalidLockBackend,
    Lease,
    LockNotAcquired,
    aacquire_lock,
    acquire_lock,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.arguments import validate_holds, validate_timeout
from django_distlock.backends.time_budget import validate_store_timeout
from django_distlock.conf import LockBackendHandler
from django_distlock.leases.request import describe_holder
from django_distlock.records import Owner
from django_distlock.semaphores.templates import SemaphoreTemplate
from django_distlock.semaphores.validation import validate_semaphore
from django_distlock.signals import lock_contended
from tests.app.backends import MinimalBackend
from tests.support.concurrency import elsewhere, run
from tests.support.databases import committed
from tests.support.holders import acquire


class Job(str, Enum):  # noqa: UP042 - a StrEnum shows its value
    """Its value is the semaphore; an f-string shows another text."""

    EXPORT = "nightly export"


class Loud(str):
    """A str whose methods all disagree with its value, and which has no hash."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return "SHOUTED"

    def __format__(self, spec: str) -> str:
        return "FORMATTED"

    def __eq__(self, other: object) -> bool:
        return False

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def encode(self, *arguments: Any) -> bytes:
        """Return another text."""
        return b"ENCODED"

    def replace(self, *arguments: Any) -> str:
        """Return yet another text."""
        return "REPLACED"


class Seconds(IntEnum):
    """Durations with names."""

    MINUTE = 60


class Wrong(float):
    """A number that converts and calculates as another one."""

    __slots__ = ()

    def __float__(self) -> float:
        return 1e9

    def __mul__(self, other: object) -> float:
        return 1e9

    __rmul__ = __add__ = __radd__ = __mul__


class Identity(UUID):
    """An id whose str() is another text."""

    def __str__(self) -> str:
        return "shown"


TEXT = "nightly export"
HERE = [pytest.param("default", id="sqlite"), "orm", "memory"]
LISTING = ["postgresql", "mariadb", "redis", "lock_server"]
SERVERS = [*LISTING, "memcached"]
"""One for each driver that is given the text."""


def stores(*servers: str) -> list[Any]:
    """Return parameters for the stores without a server, and for these."""
    marked = ((name, [pytest.mark.needs(name), pytest.mark.once]) for name in servers)
    return [*HERE, *(pytest.param(name, marks=marks) for name, marks in marked)]


on_each_store = pytest.mark.parametrize("alias", stores(*SERVERS))
on_each_listing_store = pytest.mark.parametrize("alias", stores(*LISTING))
on_each_spelling = pytest.mark.parametrize("spelled", [Job.EXPORT, Loud(TEXT)], ids=["enum", "str"])


def test_stand_ins_are_as_misleading_as_they_look() -> None:
    """Otherwise the tests would prove nothing."""
    loud = Loud("text")
    assert str(loud) == "SHOUTED"
    assert f"{loud}" == "FORMATTED"
    assert (loud == "text") is False
    assert not loud
    assert len(loud) == 0
    assert loud.encode() == b"ENCODED"
    assert loud.replace("t", "") == "REPLACED"
    assert float(Wrong(1)) == Wrong(1) * 2 == 1e9
    assert str(Identity(int=1)) == "shown"


@committed
@on_each_store
@on_each_spelling
def test_subclass_of_str_is_the_same_lock_as_its_value(alias: str, spelled: str) -> None:
    """Whichever is acquired first. Either releases it."""
    for first, second in ((spelled, TEXT), (TEXT, spelled)):
        lease = acquire_lock(first, backend=alias, label=Loud("why"), ttl=Seconds.MINUTE)
        assert lease
        assert type(lease.semaphore) is str
        assert acquire_lock(second, backend=alias) is None
        assert elsewhere(lambda: acquire_lock(second, backend=alias)) is None  # noqa: B023
        lease.renew()
        assert release_lock(second, backend=alias)


@committed
@on_each_listing_store
@on_each_spelling
def test_operator_may_name_a_lock_by_a_subclass(alias: str, spelled: str) -> None:
    """Listing, force-release and clearing use its value."""
    store = lock_backends[alias]
    lease = acquire(alias, TEXT)
    assert lease.token
    assert [lock.semaphore for lock in store.held(spelled)] == [TEXT]
    assert list(store.clear_stale(spelled)) == []
    assert store.force_release(spelled, lease.token)
    lease.mark_lost()
    assert list(store.held(TEXT)) == []


@committed
@on_each_spelling
def test_alias_may_be_a_subclass(spelled: str) -> None:
    """It means the same store, and leases and signals have the plain text."""
    memory = {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}
    configured = {TEXT if isinstance(spelled, Loud) else spelled: memory}
    received: list[str] = []

    def receive(*, semaphore: str, backend: str, **kwargs: Any) -> None:
        received.extend((semaphore, backend))

    with override_settings(DISTLOCK=configured):
        lease = acquire_lock(spelled, backend=spelled)
        assert lease
        assert [type(each) for each in (lease.backend, *lock_backends)] == [str, str]
        assert lock_backends[spelled] is lock_backends[TEXT]
        lock_contended.connect(receive)
        assert acquire_lock(spelled, backend=TEXT, timeout=0) is None
        assert run(aacquire_lock(spelled, backend=spelled)) is None
        lock_contended.disconnect(receive)
        assert release_lock(spelled, backend=spelled)
    assert [type(each) for each in received] == [str] * 4
    assert received == [TEXT] * 4


class Recording(MinimalBackend):
    """Keeps its options."""

    def __init__(self, alias: str, **options: Any) -> None:
        super().__init__(alias, ttl=options.pop("ttl"))
        self.options = options


def test_options_are_plain() -> None:
    """Each text, number and boolean; other objects stay as they are."""
    other = object()
    given = {
        "text": Loud("text"),
        "whole": Seconds.MINUTE,
        "part": Wrong(0.5),
        "truth": True,
        "nothing": None,
        "other": other,
        "ttl": Wrong(2.5),
    }
    handler = LockBackendHandler(
        {"one": {"BACKEND": Loud(f"{__name__}.Recording"), "OPTIONS": given}}
    )
    store: Any = handler["one"]
    assert type(store.ttl) is float
    assert store.ttl == 2.5
    assert store.options == {
        "text": "text",
        "whole": 60,
        "part": 0.5,
        "truth": True,
        "nothing": None,
        "other": other,
    }
    assert {type(each) for each in store.options.values()} == {
        str, int, float, bool, type(None), object,
    }  # fmt: skip


@pytest.mark.parametrize("option", ["tls", "release_on_disconnect"])
@pytest.mark.parametrize("value", ["False", 1, None])
def test_truth_of_an_option_is_a_bool(option: str, value: Any) -> None:
    """Any non-empty text from the environment is true."""
    backend = "django_distlock.backends.server.ServerBackend"
    options = {"secret": "x" * 40, option: value}
    handler = LockBackendHandler({"one": {"BACKEND": backend, "OPTIONS": options}})
    with pytest.raises(InvalidLockBackend, match=f"{option} is True or False, not {value!r}"):
        handler["one"]


def test_validated_semaphore_is_plain() -> None:
    """An exact str is not copied."""
    text = "a" * 3
    assert validate_semaphore(text) is text
    for spelled in (Job.EXPORT, Loud(TEXT), Owner(TEXT)):
        assert type(validate_semaphore(spelled)) is str
        assert validate_semaphore(spelled) == TEXT


def test_validated_numbers_are_plain() -> None:
    """Whatever their arithmetic does."""
    store = MinimalBackend("one")
    for number, plain in ((Wrong(2.5), 2.5), (Seconds.MINUTE, 60), (3, 3), (0.5, 0.5)):
        assert {type(plain)} == {
            type(each)
            for each in (
                store.validate_ttl(number),
                validate_timeout(number),
                *validate_holds(number, number, 1000),
            )
        }
        assert store.validate_ttl(number) == validate_timeout(number) == plain
    assert type(validate_store_timeout("one", Wrong(2.5))) is float


def test_label_is_its_text() -> None:
    """A subclass's __format__ is not used."""
    assert describe_holder(Job.EXPORT).startswith(f"{TEXT} (")


def test_template_is_plain() -> None:
    """Its own text, its values, and parsed semaphores are plain."""
    template = SemaphoreTemplate(Loud("<a>:x"))
    assert type(template.text) is str
    made = template.fill([Loud("7")])
    assert (type(made), made) == (str, "7:x")
    assert template.read(Loud("7:x")) == ["7"]
    assert distributed_lock(Loud("<a>:x"), backend="memory")(lambda a: a)(7) == 7


@committed
@on_each_spelling
def test_block_may_be_named_by_a_subclass(spelled: str) -> None:
    """As a call may be."""
    with distributed_lock(spelled, backend="memory") as lease:
        assert isinstance(lease, Lease)
        assert lease.semaphore == TEXT
        expected = f"This thread or task holds {TEXT!r} itself; reentrant=True"
        with (
            pytest.raises(LockNotAcquired, match=expected),
            distributed_lock(spelled, backend="memory"),
        ):
            raise NotImplementedError


def test_uuid_is_its_number() -> None:
    """Equal UUIDs have the same text."""
    assert SemaphoreTemplate("<a>").fill([Identity(int=7)]) == str(UUID(int=7))
