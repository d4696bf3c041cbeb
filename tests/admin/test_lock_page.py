"""The admin's page of one lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.test import Client, override_settings
from django.urls import reverse

from django_distlock.models import Lock, LockEvent
from django_distlock.records import LockState, WaiterInfo
from tests.support.admin_pages import (
    LIST,
    SECRET,
    lock_page,
    make_held,
    on_each_locks_database,
    page_text,
)
from tests.support.shown_stores import NOW, SECOND, ShownBackend, a_lock, a_stale_lock, shown_store

if TYPE_CHECKING:
    from tests.support.shown_stores import Shown

pytestmark = pytest.mark.django_db(databases="__all__")


@on_each_locks_database
@pytest.mark.parametrize(
    "semaphore", ["1234collectPayment", "a/b?c=d&e #f_g", "a ", "ä<b>\U0001f512", "x" * 255]
)
def test_page_shows_the_lock_that_the_list_links_to(
    locks_database: str, viewer: Client, semaphore: str
) -> None:
    """The semaphore may have any characters."""
    make_held(locks_database, semaphore, holder="the holder", token=4711)
    make_held(locks_database, f"{semaphore[:200]}, another", holder="the other")
    assert lock_page(locks_database, semaphore) in [
        lock.address
        for lock in viewer.get(LIST, {"store": locks_database}).context["listing"].locks
    ]
    text = page_text(viewer, lock_page(locks_database, semaphore))
    assert " ".join(semaphore.split()) in text
    for known in ("Holder the holder", "Token 4711", "Time left 1h", "(for 0s)", "never renewed"):
        assert known in text
    assert "the other" not in text


def test_page_shows_all_that_is_known(viewer: Client, shown: Shown) -> None:
    """State, holder, label, times, token, and who waits, in their order."""
    shown.locks = [a_lock("report")]
    shown.waiters = [
        WaiterInfo("first (web2 pid 8 MainThread)", NOW),
        WaiterInfo("web3 pid 9 <Task>"),
    ]
    text = page_text(viewer, lock_page("shown", "report"))
    for known in (
        "held A process works under this lock.",
        "Holder web1 pid 7 MainThread",
        "Label collect payment",
        "Held since Jan. 2, 2026, 6:49 a.m. (for 2h)",
        "Renewal renewed 4s ago Its process is alive, but its work may hang.",
        "56s until Jan. 2, 2026, 8:50 a.m., unless it is renewed",
        "Token 1796006054951302",
        "Waiters 2",
        "first (web2 pid 8 MainThread) since Jan. 2, 2026, 8:49 a.m.",
        "web3 pid 9 <Task>",
    ):
        assert known in text


@pytest.mark.parametrize(
    ("values", "sign"),
    [
        ({"renewed_at": NOW - 31 * SECOND, "expires_at": NOW + 29 * SECOND}, "overdue"),
        ({"renewed_at": NOW - 29 * SECOND, "expires_at": NOW + 31 * SECOND}, "alive"),
        ({"renewed_at": None}, "overdue"),
        ({"renewed_at": None, "acquired_at": NOW}, ""),
        ({"renewed_at": None, "acquired_at": None}, ""),
        ({"expires_at": None}, ""),
        ({"kept": True}, ""),
    ],
)
def test_renewals_tell_of_the_holders_process(
    viewer: Client, shown: Shown, values: dict[str, Any], sign: str
) -> None:
    """It is alive while it renews, each third of the ttl; else it may be dead."""
    shown.locks = [a_lock("report", **values)]
    text = page_text(viewer, lock_page("shown", "report"))
    assert [word for word in ("overdue", "alive") if word in text] == ([sign] if sign else [])


def test_waiters_are_told_from_none_and_from_unknown(viewer: Client, shown: Shown) -> None:
    """A store without a queue doesn't say that nobody waits."""
    shown.locks = [a_lock("report", waiting=None)]
    assert "Nobody waits for it." in page_text(viewer, lock_page("shown", "report"))
    shown.waiters = None
    assert "Waiters" not in page_text(viewer, lock_page("shown", "report"))


def test_page_has_the_history_of_a_store_that_records_it(viewer: Client) -> None:
    """Also when nobody holds the lock any more. A refresh leaves it alone."""
    LockEvent.objects.create(
        backend="shown", semaphore="report", kind="lost", at=NOW, token=7, holder="web9 pid 1"
    )
    address = lock_page("shown", "report")
    with shown_store(events=True):
        assert "lost web9 pid 1 token 7" in page_text(viewer, address)
        part = viewer.get(address, headers={"X-Distlock-Refresh": "1"}).content.decode()
        assert "web9" not in part
    with shown_store():
        assert "History" not in page_text(viewer, address)


@pytest.mark.once
@pytest.mark.parametrize(("database", "is_shown"), [(None, True), ("default", False)])
def test_history_is_not_read_from_a_database_that_does_not_answer(
    viewer: Client, database: str | None, is_shown: bool
) -> None:
    """Django's connections have no time limit, unlike those for locks."""
    with (
        mock.patch.object(ShownBackend, "events_using", database),
        shown_store(events=True) as store,
    ):
        store.failing = {"all"}
        page = page_text(viewer, lock_page("shown", "report"))
    assert "The store “shown” is unreachable." in page
    assert ("Nothing has been recorded of this lock." in page) is is_shown


@pytest.mark.parametrize("state", [*LockState, None])
def test_page_is_there_whatever_the_state(
    operator: Client, shown: Shown, state: LockState | None
) -> None:
    """A link in the admin's log leads there for good. Only a held lock can be force-released."""
    lock = a_lock("report") if state is LockState.HELD else a_stale_lock("report", state=state)
    shown.locks = [lock] if state else []
    text = page_text(operator, lock_page("shown", "report"))
    assert ("Force-release" in text) == (state is LockState.HELD)
    if state:
        assert f"State {state} " in text
    else:
        assert "Nobody holds this lock in the store “shown”." in text


def test_address_without_a_store_is_of_the_first(viewer: Client, shown: Shown) -> None:
    """An alias may have a colon, like a semaphore."""
    shown.locks = [a_lock("report"), a_lock("a:report")]
    for semaphore in ("report", "a:report"):
        address = reverse("admin:distlock_lock_change", args=[semaphore])
        assert viewer.get(address).context["semaphore"] == semaphore
    path = "django_distlock.backends.memory.MemoryBackend"
    with override_settings(DISTLOCK={"a": {"BACKEND": path}, "a:b": {"BACKEND": path}}):
        for alias, semaphore in (("a", "c"), ("a:b", "c")):
            context = viewer.get(lock_page(alias, semaphore)).context
            assert (context["store"].alias, context["semaphore"]) == (alias, semaphore)


@pytest.mark.parametrize("semaphore", ["x" * 256, "a\x07b"])
def test_what_can_be_no_semaphore_has_no_page(viewer: Client, shown: Shown, semaphore: str) -> None:
    """The store isn't asked for it."""
    assert viewer.get(lock_page("shown", semaphore)).status_code == 404
    assert shown.calls == []


def test_admin_cannot_add_change_or_delete_locks(admin_client: Client) -> None:
    """Not even a superuser: locks are acquired by code."""
    make_held("default", "report")
    before = Lock.objects.values().get()
    add = reverse("admin:distlock_lock_add")
    assert admin_client.get(add).status_code == 403
    assert admin_client.post(add, {"semaphore": "more", "holder": "h"}).status_code == 403
    delete = lock_page("default", "report", "delete")
    assert admin_client.get(delete).status_code == 403
    assert admin_client.post(delete, {"post": "yes"}).status_code == 403
    admin_client.post(lock_page("default", "report"), {"holder": "me", "owner": ""})
    selected = {"action": "delete_selected", "_selected_action": "report", "post": "yes"}
    admin_client.post(LIST, selected)
    assert Lock.objects.values().get() == before
    assert before["owner"] == SECRET
    assert add not in admin_client.get(LIST).content.decode()
