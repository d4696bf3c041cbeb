"""The DISTLOCK setting: what it means, and the errors about wrong ones."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.test import override_settings

from django_distlock import InvalidLockBackend, acquire_lock, lock_backends
from django_distlock.backends.database import DatabaseBackend
from django_distlock.checks import check_lock_backends
from django_distlock.conf import LockBackendHandler
from tests.app.backends import MinimalBackend, ORMBackend

if TYPE_CHECKING:
    from django_distlock.backends.base import BaseLockBackend

DATABASE = "django_distlock.backends.database.DatabaseBackend"


class LimitedBackend(MinimalBackend):
    """A store without unlimited ttl, like some others."""

    supports_unlimited_ttl = False


class DemandingBackend(MinimalBackend):
    """A store with a required option, and with `**others`."""

    def __init__(self, alias: str, *, url: str, **others: Any) -> None:
        super().__init__(alias)
        self.url, self.others = url, others


def make(configured: Any, alias: str = "jobs") -> BaseLockBackend:
    """Make the store that DISTLOCK[alias] describes."""
    return LockBackendHandler({alias: configured})[alias]


def make_database(**options: Any) -> DatabaseBackend:
    store = make({"BACKEND": DATABASE, "OPTIONS": options})
    assert isinstance(store, DatabaseBackend)
    return store


def refusal(configured: Any) -> str:
    """Return the error about DISTLOCK["jobs"], without the alias that it must begin with."""
    with pytest.raises(InvalidLockBackend) as caught:
        make(configured)
    name, _, message = str(caught.value).partition(": ")
    assert name == "DISTLOCK['jobs']"
    return message


def without_setting(settings: Any) -> LockBackendHandler:
    del settings.DISTLOCK
    return LockBackendHandler()


# What is configured


def test_no_setting_means_the_default_database_and_60_seconds(settings: Any) -> None:
    """A site needs no DISTLOCK."""
    backends = without_setting(settings)
    assert [*backends] == ["default"]
    store = backends["default"]
    assert type(store) is DatabaseBackend
    assert (store.alias, store.using, store.ttl, store.connections) == ("default", "default", 60, 2)


def test_backend_without_options_has_the_defaults() -> None:
    """OPTIONS may be left out."""
    store = make({"BACKEND": DATABASE})
    assert isinstance(store, DatabaseBackend)
    assert (store.using, store.ttl, store.connections) == ("default", 60, 2)


def test_options_are_the_constructors_arguments() -> None:
    """Each option arrives, and the store knows its alias."""
    store = make_database(using="default", ttl=2.5, connections=3)
    assert (store.alias, store.using, store.ttl, store.connections) == ("jobs", "default", 2.5, 3)


def test_other_backends_are_named_by_their_path() -> None:
    """A site's own store is named by its path."""
    assert type(make({"BACKEND": "tests.app.backends.ORMBackend"})) is ORMBackend


@pytest.mark.parametrize("ttl", [None, 0.001, 1, 60, 86400.5, 315360000])
def test_possible_ttl_is_kept(ttl: float | None) -> None:
    """From a millisecond to ten years, or until released."""
    assert make_database(ttl=ttl).ttl == ttl


# What is refused


def test_invalid_lock_backend_is_improperly_configured() -> None:
    """`except ImproperlyConfigured` catches it."""
    assert issubclass(InvalidLockBackend, ImproperlyConfigured)


def test_unknown_alias_is_named_beside_the_known_ones() -> None:
    """A typing error in a decorator's `backend` is found quickly."""
    backends = LockBackendHandler({"default": {"BACKEND": DATABASE}, "jobs": {"BACKEND": DATABASE}})
    expected = "DISTLOCK['job']: not configured; DISTLOCK has 'default', 'jobs'."
    with pytest.raises(InvalidLockBackend, match=f"^{re.escape(expected)}$"):
        backends["job"]


def test_unknown_alias_in_a_call_is_refused() -> None:
    """The error is not "contended"."""
    with pytest.raises(InvalidLockBackend, match=r"^DISTLOCK\['nowhere'\]: not configured"):
        acquire_lock("report", backend="nowhere")


def test_setting_other_than_a_dict_is_left_to_the_system_checks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the app raised, no command would start, and so no check."""
    monkeypatch.setattr("django_distlock.apps.on_created", [])
    with override_settings(DISTLOCK="default"):
        apps.get_app_config("distlock").ready()
        (message,) = check_lock_backends()
    assert (message.id, message.msg) == ("distlock.E001", "DISTLOCK: must be a dict of aliases.")


def test_unknown_option_is_named_beside_the_known_ones() -> None:
    """No option is ignored, and the alias is no option."""
    message = refusal({"BACKEND": DATABASE, "OPTIONS": {"timeout": 5}})
    assert message == (
        "wrong OPTIONS: got an unexpected keyword argument 'timeout'; "
        "DatabaseBackend takes using, ttl, connections, store_timeout, guard_commits, events."
    )


def test_alias_and_invalid_names_are_no_options() -> None:
    """The handler passes the constructor's first argument."""
    assert "'alias'" in refusal({"BACKEND": DATABASE, "OPTIONS": {"alias": "x"}})
    assert "strings" in refusal({"BACKEND": DATABASE, "OPTIONS": {1: "x"}})


def test_option_that_a_store_needs_is_asked_for() -> None:
    """The message is InvalidLockBackend's, which the system check can show."""
    message = refusal({"BACKEND": f"{__name__}.DemandingBackend"})
    assert message.startswith("wrong OPTIONS: missing a required ")
    assert message.endswith("argument: 'url'; DemandingBackend takes url, others.")


def test_store_may_take_options_that_it_does_not_name() -> None:
    """By `**others`."""
    options = {"url": "u", "more": 1}
    store = make({"BACKEND": f"{__name__}.DemandingBackend", "OPTIONS": options})
    assert isinstance(store, DemandingBackend)
    assert (store.url, store.others) == ("u", {"more": 1})


@pytest.mark.parametrize(
    "path", ["nowhere.Backend", "django_distlock.Nothing", "Backend", "", ".x", "..odd.Backend"]
)
def test_backend_that_cannot_be_imported_is_refused(path: str) -> None:
    """The message has the path and the reason, and the cause is kept."""
    with pytest.raises(InvalidLockBackend) as caught:
        make({"BACKEND": path})
    assert str(caught.value).startswith(f"DISTLOCK['jobs']: could not import BACKEND {path!r}: ")
    assert isinstance(caught.value.__cause__, ImportError | ValueError | TypeError)
    assert str(caught.value).endswith(str(caught.value.__cause__))


def test_unlimited_ttl_is_refused_by_a_store_that_has_none() -> None:
    """A message about the store's own rules begins with its alias, too."""
    message = refusal({"BACKEND": f"{__name__}.LimitedBackend", "OPTIONS": {"ttl": None}})
    assert message == "LimitedBackend has no unlimited ttl; give seconds."


# Settings that change, and threads


def test_override_settings_takes_effect_and_is_undone() -> None:
    """Also on a store that was already in use."""
    before, aliases = lock_backends["default"], [*lock_backends]
    with override_settings(DISTLOCK={"default": {"BACKEND": DATABASE, "OPTIONS": {"ttl": 7}}}):
        assert lock_backends["default"].ttl == 7
        assert [*lock_backends] == ["default"]
    after = lock_backends["default"]
    assert after.ttl == before.ttl == 60
    assert after is not before
    assert [*lock_backends] == aliases


def test_override_settings_takes_effect_in_threads_that_run() -> None:
    """Another thread's earlier store is no longer used."""
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(lambda: lock_backends["default"].ttl).result() == 60
        with override_settings(DISTLOCK={"default": {"BACKEND": DATABASE, "OPTIONS": {"ttl": 7}}}):
            assert thread.submit(lambda: lock_backends["default"].ttl).result() == 7
        assert thread.submit(lambda: lock_backends["default"].ttl).result() == 60


def test_other_settings_change_nothing() -> None:
    """Stores are kept when other settings change."""
    before = lock_backends["default"]
    setting_changed.send(sender=None, setting="DEBUG", value=True, enter=True)
    assert lock_backends["default"] is before


def test_thread_gets_the_same_store_each_time() -> None:
    """It is made on first use."""
    assert lock_backends["default"] is lock_backends["default"]


def test_each_thread_has_its_own_store() -> None:
    """A store need not be safe for threads."""
    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(lambda: lock_backends["default"]).result()
        assert other is not lock_backends["default"]
        assert thread.submit(lambda: lock_backends["default"]).result() is other
