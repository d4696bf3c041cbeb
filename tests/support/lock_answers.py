"""What an API answers to lock errors in its own format, whichever framework makes it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django_distlock import LockBackendUnavailable, lock_backends
from django_distlock.backends.memory import MemoryBackend
from django_distlock.records import Refusal
from tests.app.models import Counter
from tests.support.visits import SOON

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from django_distlock import Lease
    from tests.support.scripted_store import ScriptedBackend


def assert_contention_is_answered(ask: Callable[[], Any], scripted: ScriptedBackend) -> None:
    """Expect a 409 that does not show the holder."""
    scripted.owner, scripted.refusal = "somebody", Refusal("web-7 pid 4711")
    response = ask()
    assert (response.status_code, response.json()["code"]) == (409, "contended")
    assert set(response.json()) == {"detail", "code"}
    assert response["Retry-After"] in SOON
    assert response["Cache-Control"] == "no-store"
    assert "4711" not in f"{response.headers}{response.content}"


def assert_outage_is_answered(
    ask: Callable[[], Any], scripted: ScriptedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """Expect a 503 that does not say why; the log does."""
    scripted.answer("acquire", LockBackendUnavailable("no route to 10.0.0.5"))
    response = ask()
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert response["Retry-After"] in SOON
    assert "10.0.0.5" not in response.content.decode()
    [line] = [each for each in caplog.records if each.name == "django_distlock.views"]
    assert (line.levelno, vars(line)["reason"]) == (logging.ERROR, "no route to 10.0.0.5")


def write_and_lose(lease: Lease) -> None:
    """Write under a lock in memory, and lose that to an operator."""
    Counter.objects.create()
    store = lock_backends["memory"]
    assert isinstance(store, MemoryBackend)
    store.force_release(lease.semaphore, lease.token or 0)
    lease.renew()


def assert_failure_is_answered(response: Any, undone: bool) -> None:
    """Expect a 503 that invites the client to try again only if the work is undone."""
    assert response.status_code == 503
    assert response.json()["code"] == ("unavailable" if undone else "unfinished")
    assert ("Retry-After" in response) == undone
    assert Counter.objects.exists() != undone
