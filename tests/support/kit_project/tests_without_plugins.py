"""Tests that run without other plugins. Django is configured in the midst of them."""

from __future__ import annotations

import sys

import pytest


def test_nothing_is_imported_without_django() -> None:
    """A run of tests that have nothing to do with Django pays nothing."""
    assert "django_distlock_pytest" in sys.modules
    assert {"django", "django_distlock"}.isdisjoint(sys.modules)


def test_nothing_is_imported_for_another_project() -> None:
    """Django is configured, but neither DISTLOCK nor the app is there."""
    from django.conf import settings

    settings.configure(SECRET_KEY="not a secret", USE_TZ=True)
    assert "django_distlock" not in sys.modules


@pytest.fixture(scope="module")
def django_with_locks() -> None:
    """Set up Django, as a conftest.py does."""
    import django
    from django.conf import settings

    assert "django_distlock" not in sys.modules
    settings.DISTLOCK = {"default": {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}}
    django.setup()


@pytest.mark.usefixtures("django_with_locks")
def test_all_locks_are_real_by_an_option() -> None:
    """distlock_real_locks."""
    from django_distlock import lock_backends
    from django_distlock.backends.memory import MemoryBackend

    assert type(lock_backends["default"]) is MemoryBackend


@pytest.mark.parametrize("order", ["AB", "BA"])
def test_lock_order_warns(order: str) -> None:
    """distlock_lock_order is `warn`; unless the second test has a warning, the run fails."""
    from django_distlock import distributed_lock

    with distributed_lock(order[0]), distributed_lock(order[1]):
        pass
