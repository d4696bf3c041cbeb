"""The admin's pages of locks in a browser, as an operator uses them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import expect

from tests.support.admin_browser import refreshed, signed_in, strict_site, tab_to
from tests.support.admin_pages import BOTH, FORCE_RELEASE, LIST, log_in
from tests.support.browser import opened_page
from tests.support.processes import Workers
from tests.support.shown_stores import Shown, a_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page, Route

pytestmark = [
    pytest.mark.once,
    pytest.mark.needs("chromium"),
    pytest.mark.django_db(transaction=True, databases=["default"]),
]


@pytest.fixture
def address() -> Iterator[str]:
    """Serve the admin."""
    with strict_site() as url:
        yield url


def test_operator_frees_a_lock_by_the_keyboard_alone(address: str) -> None:
    """Sign in, see another process's lock appear, find it, and take it away."""
    User.objects.create_superuser("alice", password="secret")
    with opened_page() as page:
        page.goto(f"{address}{LIST}")
        page.keyboard.type("alice")
        page.keyboard.press("Tab")
        page.keyboard.type("secret")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Nobody holds a lock in this store.")).to_be_visible()
        arguments = ("default", "1234collectPayment", "collect payment")
        with Workers(1, "hold_until_lost", *arguments) as workers:
            lock = page.get_by_role("row", name="1234collectPayment")
            expect(lock.get_by_role("cell", name="collect payment")).to_be_visible()
            expect(lock.get_by_text(re.compile("renewed .* ago"))).to_be_visible()
            assert page.url == f"{address}{LIST}"

            tab_to(page, page.get_by_label("Search", exact=True))
            page.keyboard.type("COLLECT")
            page.keyboard.press("Enter")
            expect(page.get_by_text("Searched in any part")).to_be_visible()
            tab_to(page, page.get_by_role("link", name="stale 0"))
            page.keyboard.press("Enter")
            expect(page.get_by_text("No lock was found.")).to_be_visible()
            tab_to(page, page.get_by_role("link", name="held 1"))
            page.keyboard.press("Enter")

            tab_to(page, page.get_by_role("link", name="1234collectPayment"))
            page.keyboard.press("Enter")
            expect(page.get_by_role("heading", name="1234collectPayment")).to_be_visible()
            tab_to(page, page.get_by_role("button", name="Force-release"))
            page.keyboard.press("Enter")
            expect(page.get_by_text("its commit is refused")).to_be_visible()
            tab_to(page, page.get_by_role("button", name="Yes, force-release it"))
            page.keyboard.press("Enter")
            expect(page.get_by_text("Force-released: 1234collectPayment.")).to_be_visible()
            [[pid, reason]] = workers.results()
        assert pid.isdigit()
        assert "an operator took it away" in reason
        page.get_by_role("link", name="Home").click()
        expect(page.get_by_role("link", name="default:1234collectPayment")).to_be_visible()


def focused(page: Page) -> str:
    """Return what has the focus: the value of a checkbox, or a text."""
    return str(page.evaluate("document.activeElement.value || document.activeElement.innerText"))


def test_refreshed_page_keeps_what_its_user_does(address: str, shown: Shown) -> None:
    """Ticks, the focus, a text that is being typed, the scroll; until the lock is another's."""
    shown.locks = [a_lock(f"lock {number:02}", token=1) for number in range(40)]
    with signed_in(log_in(*BOTH), address) as page:
        tick = page.get_by_label("Select lock 30")
        page.get_by_label("Select lock 07").check()
        tick.check()
        page.get_by_label("Search", exact=True).fill("half a wor")
        tick.focus()
        scroll = page.evaluate("scrollY")
        assert scroll > 0
        del shown.locks[29]
        shown.locks.insert(35, a_lock("lock 34a", token=1))
        expect(page.get_by_role("row", name="lock 34a")).to_be_visible()
        expect(page.get_by_role("row", name="lock 29")).to_have_count(0)
        expect(page.get_by_role("button", name="Force-release selected (2)")).to_be_visible()
        assert focused(page) == "1:lock 30"
        assert tick.is_checked()
        assert page.get_by_label("Search", exact=True).input_value() == "half a wor"
        assert abs(page.evaluate("scrollY") - scroll) < 200

        shown.locks[29] = a_lock("lock 30", token=2, holder="another (web2 pid 8 MainThread)")
        expect(page.get_by_role("cell", name="another")).to_be_visible()
        assert not tick.is_checked()
        assert focused(page) == "2:lock 30"
        expect(page.get_by_role("button", name="Force-release selected (1)")).to_be_visible()
        del shown.locks[29]
        expect(tick).to_have_count(0)
        assert focused(page) == "1:lock 31"
        expect(page.get_by_role("status")).to_have_text("39 locks held.")

        page.get_by_label("Select all on this page").check()
        expect(page.get_by_role("button", name="Force-release selected (39)")).to_be_visible()
        page.get_by_role("button", name="Pause updates").click()
        shown.locks.clear()
        calls = len(shown.calls)
        page.wait_for_timeout(500)
        assert len(shown.calls) == calls
        page.get_by_role("button", name="Force-release selected").click()
        expect(page.get_by_text("It is free already").first).to_be_visible()


def test_page_tells_that_it_is_outdated(address: str, shown: Shown) -> None:
    """When the site doesn't answer, answers an error, or has signed the user out."""
    shown.locks = [a_lock("report")]
    answers: list[Callable[[Route], None]] = [
        lambda route: route.fulfill(status=500),
        lambda route: route.fulfill(body="no page of locks"),
    ]
    with signed_in(log_in(*BOTH), address, "status of 500") as page:
        expect(page.get_by_role("row", name="report")).to_be_visible()
        for answer in answers:
            page.route("**/lock/", answer)
            warning = page.get_by_text(re.compile("Could not refresh. This was true at ..:..:.."))
            expect(warning.first).to_be_visible()
            page.unroute("**/lock/")
            expect(warning.first).to_be_hidden()
        page.get_by_label("Select report").check()
        search = page.get_by_label("Search", exact=True)
        search.fill("half a wor")
        shown.failing = {"all"}
        expect(page.get_by_role("alert")).to_contain_text("The store “shown” is unreachable.")
        expect(page.get_by_role("link", name="shown unreachable")).to_be_visible()
        expect(page.get_by_role("row", name="report")).to_have_count(0)
        shown.failing = set()
        expect(page.get_by_label("Select report")).to_be_checked()
        assert focused(page) == search.input_value() == "half a wor"
        page.context.clear_cookies()
        expect(page.get_by_text("sign in again").first).to_be_visible()


def test_user_without_the_permission_is_refused(address: str, shown: Shown) -> None:
    """There is nothing to press, and a request that is made up is a 403."""
    shown.locks = [a_lock("report", token=1)]
    with signed_in(log_in("view_lock"), address) as page:
        page.get_by_role("link", name="report").click()
        expect(page.get_by_text("A process works under this lock.")).to_be_visible()
        expect(page.get_by_role("button", name="Force-release")).to_have_count(0)
        form = {"selected": "1:report", "confirmed": "yes"}
        token = page.locator("[name=csrfmiddlewaretoken]").first.input_value()
        answer = page.request.post(
            f"{address}{FORCE_RELEASE}", form={**form, "csrfmiddlewaretoken": token}
        )
        assert answer.status == 403
        refreshed(page)
    assert [lock.semaphore for lock in shown.locks] == ["report"]


def test_pages_work_without_javascript(address: str, shown: Shown) -> None:
    """All but refreshing by themselves, and selecting all at once."""
    shown.locks = [a_lock("report", token=1), a_lock("sync", token=1)]
    client = log_in(*BOTH)
    with opened_page() as other:
        browser = other.context.browser
        assert browser is not None
        page = browser.new_context(java_script_enabled=False).new_page()
        cookie = client.cookies["sessionid"].value
        page.context.add_cookies([{"name": "sessionid", "value": cookie, "url": address}])
        page.goto(f"{address}{LIST}?q=report")
        expect(page.get_by_role("button", name="Pause updates")).to_be_hidden()
        expect(page.get_by_label("Select all on this page")).to_be_hidden()
        page.get_by_role("link", name="Refresh").click()
        page.get_by_label("Select report").check()
        page.get_by_role("button", name="Force-release selected").click()
        page.get_by_role("button", name="Yes, force-release it").click()
        expect(page.get_by_text("Force-released: report.")).to_be_visible()
        assert page.url.endswith("?store=shown&q=report")
    assert [lock.semaphore for lock in shown.locks] == ["sync"]
