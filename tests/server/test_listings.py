"""Listings of a lock server's locks, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from django_distlock.server.listings import PAGE
from tests.support.lock_client import LockClient, endpoint_of, friend
from tests.support.lock_servers import start_lock_server

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.needs("lock_server")


def listed(client: LockClient, **members: Any) -> list[list[str]]:
    """Return the names that are held, page by page."""
    pages: list[list[str]] = []
    cursor = None
    while not pages or cursor is not None:
        answer = client.ask("held", cursor=cursor, **members)
        cursor = answer["cursor"]
        pages.append([lock[0] for lock in answer["locks"]])
    return pages


@pytest.fixture(scope="module")
def many() -> Iterator[LockClient]:
    """Return a client of a server where 2,500 locks are held, 100 of them with another name."""
    with start_lock_server() as running, friend(endpoint_of(running)) as client:
        for number in range(2_500):
            client.acquire(f"{'b' if number % 25 else 'a'}{number:04}", ttl=1_000, holder="host")
        yield client


def test_all_locks_are_listed_page_by_page(many: LockClient) -> None:
    """Each once, in any order."""
    pages = listed(many)
    assert [len(page) for page in pages] == [1_000, 1_000, 500]
    names = sorted(name for page in pages for name in page)
    assert names == sorted(f"{'b' if each % 25 else 'a'}{each:04}" for each in range(2_500))
    assert [len(page) for page in listed(many, prefix="a")] == [100]
    assert listed(many, prefix="c") == [[]]


def test_first_locks_are_listed_by_name(many: LockClient) -> None:
    """With all details of each lock but its owner."""
    answer = many.ask("held", prefix="b", limit=3)
    assert [lock[0] for lock in answer["locks"]] == ["b0001", "b0002", "b0003"]
    assert answer["cursor"] is None
    for _, token, holder, acquired_at, left, *others in answer["locks"]:
        assert (token, holder) == (acquired_at, "host")
        assert others == [None, False, 0]
        assert acquired_at <= answer["now"]
        assert 0 < left <= 1_000
    assert len(many.ask("held", limit=1_000)["locks"]) == 1_000
    assert many.ask("held", limit=0)["locks"] == []


def test_cursor_is_not_sent_back_with_a_limit(many: LockClient) -> None:
    """Whatever it is: 1e999 would come back as invalid JSON."""
    many.send(b'{"do":"held","limit":1,"cursor":1e999}\n')
    assert many.message()["cursor"] is None


def test_abandoned_listing_makes_room_for_others(many: LockClient) -> None:
    """Sixteen may be under way; an older one is refused."""
    cursors = [many.ask("held")["cursor"] for _ in range(17)]
    assert many.ask("held", cursor=cursors[0])["error"] == "refused"
    answers = [many.ask("held", cursor=cursor) for cursor in cursors[1:]]
    assert [len(answer["locks"]) for answer in answers] == [1_000] * 16
    last = [many.ask("held", cursor=answer["cursor"]) for answer in answers]
    assert [(len(answer["locks"]), answer["cursor"]) for answer in last] == [(500, None)] * 16
    assert many.ask("held", cursor=cursors[1])["error"] == "refused"
    assert many.ask("held", cursor="1")["error"] == "refused"


def paged(client: LockClient, **members: Any) -> tuple[int, dict[str, Any]]:
    """Return how many requests a page took, and the answer."""
    query = {"page": 1, "limit": 100, "window": 10_000, **members}
    answer = client.ask("page", **query)
    requests = 1
    while answer["cursor"] is not None:
        answer = client.ask("page", **query, cursor=answer["cursor"])
        requests += 1
    return requests, answer


def test_page_is_searched_a_part_at_a_time(many: LockClient) -> None:
    """Only what is on it is sent."""
    requests, answer = paged(many, page=2, limit=3, search="HOST")
    assert requests == 2
    assert [lock[0] for lock in answer["locks"]] == ["a0075", "a0100", "a0125"]
    assert (answer["found"], answer["is_capped"]) == (2_500, False)
    requests, answer = paged(many, search="B24", limit=0)
    assert (requests, answer["locks"], answer["found"]) == (2, [], 96)
    _, answer = paged(many, prefix="a", search="nowhere")
    assert (answer["locks"], answer["found"]) == ([], 0)


def test_search_ends_when_it_has_found_too_many(many: LockClient) -> None:
    """It has the locks that are in the table longest."""
    requests, answer = paged(many, window=5)
    assert requests == 1
    assert [lock[0] for lock in answer["locks"]] == ["a0000", "b0001", "b0002", "b0003", "b0004"]
    assert (answer["found"], answer["is_capped"]) == (5, True)
    assert many.ask("page", page=1, limit=1, cursor=999)["error"] == "refused"


def test_page_of_the_longest_names_is_not_too_long(quiet_client: LockClient) -> None:
    """It does not count as unread answers."""
    wide = "\U0001f512"
    names = [f"{number:03}".ljust(255, wide) for number in range(PAGE)]
    for name in names:
        quiet_client.acquire(name, holder=wide * 1_000)
    [page] = listed(quiet_client)
    assert sorted(page) == names
    assert all(quiet_client.release(name) for name in names)
