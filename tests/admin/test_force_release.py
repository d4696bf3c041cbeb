"""Force-release from the admin: asked for, confirmed, carried out, told and logged."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connections
from django.test import Client, override_settings
from django.urls import resolve

from django_distlock import LockBackendUnavailable, LockLost
from django_distlock.runtime import atomic_exemptions
from django_distlock.signals import lock_force_released
from tests.support.admin_pages import (
    FORCE_RELEASE,
    LIST,
    lock_page,
    make_held,
    messages_after,
    page_text,
    rows,
    text_of,
)
from tests.support.commands import on_each_store
from tests.support.concurrency import until
from tests.support.holders import holding
from tests.support.shown_stores import Shown, a_lock, a_stale_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.django_db(databases="__all__")

CONFIRMED = {"confirmed": "yes"}


@pytest.fixture
def sent() -> Iterator[list[dict[str, Any]]]:
    """Collect what the signal of forced releases says."""
    collected: list[dict[str, Any]] = []

    def receive(**values: Any) -> None:
        collected.append({name: values[name] for name in ("semaphore", "backend", "token", "by")})

    lock_force_released.connect(receive)
    yield collected
    lock_force_released.disconnect(receive)


def confirmation(client: Client, *selected: str, **query: str) -> str:
    """Return the text of the page that asks for confirmation."""
    response = client.post(f"{FORCE_RELEASE}?{_encoded(query)}", {"selected": selected})
    assert response.status_code == 200
    return text_of(response.content.decode().partition('id="content-main"')[2])


def force_release(client: Client, *selected: str, store: str = "shown") -> list[str]:
    """Confirm, and return the messages."""
    return messages_after(
        client, f"{FORCE_RELEASE}?store={store}", {"selected": selected, **CONFIRMED}
    )


def _encoded(query: dict[str, str]) -> str:
    return "&".join(f"{name}={value}" for name, value in query.items())


def test_only_held_locks_can_be_selected(operator: Client, shown: Shown) -> None:
    """A stale one is free, and one without a token can't be named safely."""
    shown.locks = [a_lock("held"), a_lock("kept", kept=True), a_lock("b", token=None)]
    shown.locks.append(a_stale_lock("stale"))
    page = operator.get(LIST).content.decode()
    assert page.count('name="selected"') == 2
    assert list(rows(operator)) == ["held", "kept", "b", "stale"]
    shown.locks = shown.locks[2:]
    assert "Force-release" not in page_text(operator, LIST)


def test_confirmation_names_holder_and_consequences(operator: Client, shown: Shown) -> None:
    """Since when it is held, whether it is renewed, with which token; nothing is done yet."""
    shown.locks = [a_lock("report", token=7), a_lock("sync", token=8, kept=True)]
    text = confirmation(operator, "7:report", "8:sync")
    for known in (
        "Force-release these 2 locks?",
        "Holder web1 pid 7 MainThread",
        "(for 2h)",
        "renewed 4s ago",
        "Token 7",
        "its commit is refused and rolled back",
        "may be done twice",
        "Releasing it lets others in before its min_hold is over.",
        "Yes, force-release 2 locks",
        "No, take me back",
    ):
        assert known in text
    assert "force_release" not in shown.calls
    assert not LogEntry.objects.exists()


@pytest.mark.usefixtures("locks_database")
def test_confirmation_says_what_no_guard_means(operator: Client) -> None:
    """Without guard_commits nothing stops the holder. With it, the database's own commits wait."""
    database = "django_distlock.backends.database.DatabaseBackend"
    make_held("default", "report", token=7)
    texts = {}
    for guard in (True, False):
        options = {"guard_commits": guard}
        with override_settings(DISTLOCK={"a": {"BACKEND": database, "OPTIONS": options}}):
            texts[guard] = confirmation(operator, "7:report", store="a")
    assert "nothing stops its work, which may be done twice" in texts[False]
    assert "on the database of the locks, its commit is refused" in texts[True]


def test_confirmation_tells_of_what_has_changed(operator: Client, shown: Shown) -> None:
    """What is free, or somebody else's by now, isn't offered for release."""
    shown.locks = [
        a_lock("taken", token=8),
        a_lock("same", token=5),
        a_stale_lock("stale", token=6),
    ]
    response = operator.post(
        FORCE_RELEASE, {"selected": ["7:taken", "5:same", "6:stale", "4:free"]}
    )
    page = response.content.decode()
    text = text_of(page)
    assert "Another holder has it by now, so it will not be released. You saw token 7." in text
    assert text.count("It is free already") == 2
    assert page.count('name="selected"') == 1
    assert 'value="5:same"' in page
    text = confirmation(operator, "4:free")
    assert "Yes" not in text
    assert "Back to the list" in text


def test_confirmed_locks_are_released(
    operator: Client, shown: Shown, sent: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """The signal, the package's log and the admin's log say who did it. The list is shown again."""
    shown.locks = [a_lock("report", token=7), a_lock("sync", token=8), a_lock("other", token=9)]
    query = "store=shown&q=r&state=held&p=2"
    response = operator.post(
        f"{FORCE_RELEASE}?{query}", {"selected": ["7:report", "8:sync"], **CONFIRMED}
    )
    assert response["Location"] == f"{LIST}?{query}"
    assert [lock.semaphore for lock in shown.locks] == ["other"]
    by = "admin user alice"
    assert sent == [
        {"semaphore": "report", "backend": "shown", "token": 7, "by": by},
        {"semaphore": "sync", "backend": "shown", "token": 8, "by": by},
    ]
    assert f"The lock on 'report', with token 7, was force-released by {by}." in caplog.messages
    entries = LogEntry.objects.order_by("pk")
    assert [(entry.user.get_username(), entry.object_repr) for entry in entries] == [
        ("alice", "shown:report"),
        ("alice", "shown:sync"),
    ]
    assert entries[0].get_change_message() == "Force-released, token 7."


def test_entry_in_the_log_leads_to_the_lock(operator: Client, shown: Shown) -> None:
    """From the admin's index to the lock's page, and from there to all its entries."""
    shown.locks = [a_lock("a/b:c_d", token=7)]
    force_release(operator, "7:a/b:c_d")
    address = LogEntry.objects.get().get_admin_url()
    assert address == lock_page("shown", "a/b:c_d")
    assert address in operator.get("/admin/").content.decode()
    log = operator.get(address).context["log_address"]
    assert "Force-released, token 7." in page_text(operator, log)


def test_each_outcome_is_told(operator: Client, shown: Shown) -> None:
    """Released, held by another by now, and free already."""
    shown.locks = [a_lock("<b>mine</b>", token=5), a_lock("taken", token=8)]
    assert force_release(operator, "5:<b>mine</b>", "7:taken", "4:free") == [
        "Force-released: <b>mine</b> .",
        "Not released, because another holder has it by now: taken .",
        "Free already: free .",
    ]
    assert [lock.semaphore for lock in shown.locks] == ["taken"]
    assert LogEntry.objects.count() == 1


def test_many_locks_are_told_in_one_message(operator: Client, shown: Shown) -> None:
    """Ten are named, the others counted; each has its entry in the log."""
    shown.locks = [a_lock(f"lock {number:03}", token=1) for number in range(100)]
    [message] = force_release(operator, *(f"1:lock {number:03}" for number in range(100)))
    assert message.startswith("Force-released: lock 000 , lock 001 ,")
    assert message.endswith("lock 009 and 90 more.")
    assert LogEntry.objects.count() == 100


def test_store_that_goes_down_in_between_is_told(operator: Client, shown: Shown) -> None:
    """The lock that was tried may be released or not; the others aren't tried, which takes long."""
    shown.locks = [a_lock(name, token=1) for name in ("a", "b", "c", "d")]
    shown.failing = {"b"}
    shown.error = LockBackendUnavailable("redis://u:secret@h timed out", reply_lost=True)
    messages = force_release(operator, "1:a", "1:b", "1:c", "1:d")
    assert messages == [
        "Force-released: a .",
        "The store did not answer, so it may have been released, or not: b . redis://…@h timed out",
        "Not tried, because the store did not answer: c , d .",
    ]
    log = [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")]
    assert log == [
        "Force-released, token 1.",
        "Tried to force-release, token 1; the store did not answer.",
    ]
    shown.failing = {"all"}
    assert "The store “shown” is unreachable." in confirmation(operator, "1:c", "1:d")


@pytest.mark.parametrize(
    "values", [[], ["1:"], ["report"], ["x:report"], ["1:a\x00"], ["9223372036854775808:a"]]
)
def test_what_names_no_lock_is_refused(operator: Client, shown: Shown, values: list[str]) -> None:
    """Nothing selected is a message; nonsense is a 400; a GET leads to the list."""
    assert operator.get(FORCE_RELEASE)["Location"] == f"{LIST}?store=shown"
    data = {"selected": values, **CONFIRMED}
    if values:
        assert operator.post(FORCE_RELEASE, data).status_code == 400
    else:
        told = messages_after(operator, FORCE_RELEASE, data)
        assert told == ["Select the locks to force-release first."]
    assert "force_release" not in shown.calls


def test_store_that_lists_nothing_releases_nothing(operator: Client) -> None:
    """As Memcached."""
    with override_settings(DISTLOCK={"small": {"BACKEND": "tests.app.backends.MinimalBackend"}}):
        assert "list its locks" in confirmation(operator, "1:report", store="small")
        told = force_release(operator, "1:report", store="small")
        assert told == ["This store can't release a lock by force."]


@on_each_store
def test_holder_loses_the_lock_and_the_next_token_is_greater(operator: Client, alias: str) -> None:
    """A holder that wakes up late learns it, and a confirmation from before frees nothing."""
    with holding(alias, "report", label="nightly") as lease:
        selected = f"{lease.token}:report"
        [held] = rows(operator, store=alias).values()
        assert (held[0], held[2], held[5]) == ("held", "nightly", str(lease.token))
        assert held[3].endswith("never renewed")

        def is_shown_as_renewed() -> bool:
            lease.renew()  # Redis takes the first tenth of a second for the grant
            text = page_text(operator, lock_page(alias, "report"))
            return re.search(r"renewed \d+s ago", text) is not None

        until(is_shown_as_renewed)
        assert "Yes, force-release it" in confirmation(operator, selected, store=alias)
        assert force_release(operator, selected, store=alias) == ["Force-released: report ."]
        with pytest.raises(LockLost):
            lease.renew()
        with holding(alias, "report") as following:
            assert following.token is not None
            assert following.token > int(selected.partition(":")[0])
            told = force_release(operator, selected, store=alias)
            assert told == ["Not released, because another holder has it by now: report ."]
            following.renew()
            assert following.held


@pytest.mark.parametrize("address", [LIST, FORCE_RELEASE, lock_page("default", "report")])
def test_pages_are_exempt_from_atomic_requests(address: str) -> None:
    """On every database: a release is not undone with the page, nor the page with the store."""
    assert set(connections) == atomic_exemptions(resolve(address).func)
