"""The pytest plugin of django_distlock: fixtures, locks in memory, and the check of lock order.

See docs/how-to/test.md. It stands outside the package, and imports it for tests of a Django project
that uses it only: importing it takes longer than most runs of pytest take to start.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from django_distlock import test as kit
    from django_distlock.test.lock_order import LockOrder

MODES: Final = ("error", "warn", "off")
WATCHING: Final = pytest.StashKey["LockOrder"]()


class LockOrderWarning(pytest.PytestWarning):
    """Tests take two locks in opposite orders, and `distlock_lock_order` is `warn`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "distlock_real_locks",
        "django_distlock: let all tests use the stores of DISTLOCK, instead of memory",
        type="bool",
        default=False,
    )
    parser.addini(
        "distlock_lock_order",
        f"django_distlock: what two locks taken in opposite orders are: {', '.join(MODES)}",
        default="error",
    )


def pytest_configure(config: pytest.Config) -> None:
    for marker in (
        "real_locks: let the test use the stores of DISTLOCK; otherwise its locks are in memory",
        "any_lock_order: let the test take locks in the opposite order of other tests",
    ):
        config.addinivalue_line("markers", marker)
    mode = config.getini("distlock_lock_order")
    if mode not in MODES:
        raise pytest.UsageError(f"distlock_lock_order is one of {', '.join(MODES)}, not {mode!r}.")


def is_used() -> bool:
    """Tell whether Django is configured, for a project that uses django_distlock."""
    conf = sys.modules.get("django.conf")
    if conf is None or not conf.settings.configured:
        return False
    apps = [app.partition(".")[0] for app in conf.settings.INSTALLED_APPS]
    return (
        "django_distlock" in apps
        or hasattr(conf.settings, "DISTLOCK")
        or "django_distlock" in sys.modules
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Watch the order of locks from here on, fixtures included."""
    is_off = item.config.getini("distlock_lock_order") == "off"
    if not (is_off or item.get_closest_marker("any_lock_order")) and is_used():
        from django_distlock.test.lock_order import lock_order

        item.stash[WATCHING] = lock_order
        lock_order.start(item.nodeid)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Report what the test took in the opposite order of earlier ones."""
    try:
        yield
    except BaseException as error:
        if problem := _finish_watching(item):
            error.add_note(problem)
        raise
    if problem := _finish_watching(item):
        if item.config.getini("distlock_lock_order") == "error":
            pytest.fail(problem, pytrace=False)
        warnings.warn(LockOrderWarning(problem), stacklevel=2)


def _finish_watching(item: pytest.Item) -> str:
    lock_order: LockOrder | None = item.stash.get(WATCHING, None)
    if lock_order is None:
        return ""
    del item.stash[WATCHING]
    return lock_order.finish()


def has_real_locks(request: pytest.FixtureRequest) -> bool:
    """Tell whether the test uses the stores of DISTLOCK."""
    marker = request.node.get_closest_marker("real_locks")
    return marker is not None or bool(request.config.getini("distlock_real_locks"))


@pytest.fixture(autouse=True)
def override_locks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep the locks of each test in memory, unless it is marked `real_locks`."""
    if has_real_locks(request) or not is_used():
        yield
        return
    from django_distlock.test import override_locks

    with override_locks():
        yield


@pytest.fixture
def captured_locks(override_locks: None) -> Iterator[kit.CapturedLocks]:
    """Return a list of what happens to locks during the test, in order."""
    from django_distlock.test import captured_locks

    with captured_locks() as locks:
        yield locks


@pytest.fixture
def no_lock_held_after_test(request: pytest.FixtureRequest, override_locks: None) -> Iterator[None]:
    """Fail if the test leaves a lock held, and say where it was acquired."""
    from django_distlock.test import no_lock_held_after_test

    if has_real_locks(request):
        open_database(request)  # first, so that it can be asked at the end
    watching = no_lock_held_after_test()
    watching.enable()
    yield
    if problem := watching.finish():
        pytest.fail(problem, pytrace=False)


def open_database(request: pytest.FixtureRequest) -> None:
    """Set up what the test has of pytest-django's database fixtures, or its marker."""
    names = {"db", "transactional_db"} & {*request.fixturenames}
    is_installed = request.config.pluginmanager.hasplugin("django")
    if is_installed and request.node.get_closest_marker("django_db"):
        names.add("db")
    for name in names:
        request.getfixturevalue(name)


@pytest.fixture
def assert_locked() -> Callable[..., None]:
    """Return django_distlock.test.assert_locked."""
    from django_distlock.test import assert_locked

    return assert_locked


@pytest.fixture
def held_elsewhere() -> type[kit.held_elsewhere]:
    """Return django_distlock.test.held_elsewhere."""
    from django_distlock.test import held_elsewhere

    return held_elsewhere


@pytest.fixture
def lose() -> Callable[..., None]:
    """Return django_distlock.test.lose."""
    from django_distlock.test import lose

    return lose


@pytest.fixture
def expire() -> Callable[..., None]:
    """Return django_distlock.test.expire."""
    from django_distlock.test import expire

    return expire


@pytest.fixture
def store_down() -> type[kit.store_down]:
    """Return django_distlock.test.store_down."""
    from django_distlock.test import store_down

    return store_down
