"""What a lock server is asked, from the outside: locks, listings, waiting, and after a restart."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from django_distlock.server import connection, request_fields
from django_distlock.server.listings import PAGE
from django_distlock.server.transitions import OFFER_SECONDS
from tests.support.concurrency import until
from tests.support.lock_client import Endpoint, LockClient, Serving, endpoint_of, friend, line
from tests.support.lock_servers import flawless_lock_server, start_lock_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Server

pytestmark = pytest.mark.needs("lock_server")

ONE, TWO = "1" * 32, "2" * 32
"""Names of processes."""
HOUR = 3_600_000_000
"""Microseconds."""


@pytest.fixture(scope="module")
def quiet_lock_server() -> Iterator[Server]:
    """Run a server that only this module asks."""
    with flawless_lock_server() as running:
        yield running


@pytest.fixture
def quiet_endpoint(quiet_lock_server: Server) -> Iterator[Endpoint]:
    """Return where that server listens; the test has to leave it empty."""
    endpoint = endpoint_of(quiet_lock_server)
    yield endpoint
    with friend(endpoint) as client:
        until(lambda: client.ask("status")["connections"] == 1)
        status = client.ask("status")
        assert (status["locks"], status["waiters"], status["processes"]) == (0, 0, 0)


@pytest.fixture
def quiet_client(quiet_endpoint: Endpoint) -> Iterator[LockClient]:
    """Return a client of that server."""
    with friend(quiet_endpoint) as connected:
        yield connected


# What is asked


def test_lock_is_acquired_renewed_and_released_by_its_owner_only(quiet_client: LockClient) -> None:
    """Whoever asks for it on whichever connection."""
    token = quiet_client.acquire("1234collectPayment", "one", holder="host")
    assert quiet_client.acquire("1234collectPayment", "two") == 0
    assert quiet_client.acquire("1234collectPayment", "one") == token
    lease = ["1234collectPayment", "one", 60, token, "host"]
    assert quiet_client.renew(
        lease,
        ["1234collectPayment", "two", 60, token, ""],
        ["5678collectPayment", "one", 60, None, ""],
    ) == [
        True,
        False,
        False,
    ]
    assert quiet_client.release("1234collectPayment", "two") == 0
    assert quiet_client.release("1234collectPayment", "one") == 1
    assert quiet_client.release("1234collectPayment", "one") == 0
    assert quiet_client.renew(lease) == [False]
    assert quiet_client.acquire("1234collectPayment", "two") > token
    assert quiet_client.release("1234collectPayment", "two") == 1


def test_lock_is_kept_from_everybody_for_a_while() -> None:
    """And then it is free again."""
    with Serving() as running, friend(running.endpoint) as client:
        client.acquire("1234collectPayment")
        assert client.release("1234collectPayment", keep=20) == 1
        running.let_pass(19)
        assert client.acquire("1234collectPayment", "other") == 0
        running.let_pass(1)
        assert client.acquire("1234collectPayment", "other") > 0


def test_lock_is_taken_away_by_its_token_only(quiet_client: LockClient) -> None:
    """The holder is told so when it renews."""
    token = quiet_client.acquire("1234collectPayment")
    taken = [
        quiet_client.ask("force_release", semaphore="1234collectPayment", token=number)["released"]
        for number in (token + 1, token, token)
    ]
    assert taken == [0, 1, 0]
    assert quiet_client.renew(["1234collectPayment", "me", 60, token, ""]) == [False]


def test_holder_of_many_locks_is_kept_once() -> None:
    """As long as he is one of those of late: the texts of others don't pile up."""
    with Serving() as running, friend(running.endpoint) as client:
        for name in ("first", "second"):
            client.acquire(name, holder="a host and its process")
        for number in range(request_fields.HOLDERS):
            client.acquire("of others", holder=f"host {number}")
        client.acquire("third", holder="a host and its process")
        first, second, third = running.service.table.describe(["first", "second", "third"])
        assert first.holder is second.holder
        assert first.holder is not third.holder


LEASE: list[Any] = ["1234collectPayment", "me", 60, 1, ""]
SENSELESS: dict[str, dict[str, Any]] = {
    "no action": {},
    "unknown action": {"do": "grant"},
    "action of another type": {"do": ["acquire"]},
    "no semaphore": {"do": "acquire", "owner": "me", "ttl": 60},
    "semaphore of another type": {"do": "leave", "semaphore": 7, "owner": "me"},
    "semaphore that can't be": {"do": "leave", "semaphore": "\0", "owner": "me"},
    "no owner": {"do": "leave", "semaphore": "1234collectPayment"},
    "long owner": {"do": "leave", "semaphore": "1234collectPayment", "owner": "o" * 201},
    "no ttl": {"do": "acquire", "semaphore": "1234collectPayment", "owner": "me"},
    "ttl of another type": {
        "do": "acquire",
        "semaphore": "1234collectPayment",
        "owner": "me",
        "ttl": True,
    },
    "short ttl": {"do": "acquire", "semaphore": "1234collectPayment", "owner": "me", "ttl": 0},
    "long ttl": {"do": "acquire", "semaphore": "1234collectPayment", "owner": "me", "ttl": 100_001},
    "endless ttl": {
        "do": "acquire",
        "semaphore": "1234collectPayment",
        "owner": "me",
        "ttl": 10**400,
    },
    "long holder": {
        "do": "acquire",
        "semaphore": "1234collectPayment",
        "owner": "me",
        "ttl": 60,
        "holder": "h" * 1_001,
    },
    "holder with a line's end": {
        "do": "acquire",
        "semaphore": "1234collectPayment",
        "owner": "me",
        "ttl": 60,
        "holder": "a\nb",
    },
    "waiting holder that is no Unicode": {
        "do": "join",
        "semaphore": "1234collectPayment",
        "owner": "me",
        "process": ONE,
        "number": 1,
        "holder": "\ud800",
    },
    "owner with a control character": {
        "do": "acquire",
        "semaphore": "1234collectPayment",
        "owner": "m\x9be",
        "ttl": 60,
    },
    "prefix that no semaphore has": {"do": "held", "prefix": "\0"},
    "no leases": {"do": "renew"},
    "leases of another type": {"do": "renew", "leases": {"a": LEASE}},
    "negative time": {
        "do": "release",
        "semaphore": "1234collectPayment",
        "owner": "me",
        "keep": -1,
    },
    "time of another type": {
        "do": "release",
        "semaphore": "1234collectPayment",
        "owner": "me",
        "keep": "1",
    },
    "no number": {"do": "join", "semaphore": "1234collectPayment", "owner": "me", "process": ONE},
    "huge number": {
        "do": "join",
        "semaphore": "1234collectPayment",
        "owner": "me",
        "process": ONE,
        "number": 2**62,
    },
    "prefix of another type": {"do": "held", "prefix": None},
    "limit that is too high": {"do": "held", "limit": 1_001},
    "no token": {"do": "force_release", "semaphore": "1234collectPayment"},
}


@pytest.mark.parametrize("what", SENSELESS)
def test_senseless_request_changes_nothing(
    quiet_endpoint: Endpoint, quiet_client: LockClient, what: str
) -> None:
    """It is told so, and the connection goes on."""
    with friend(quiet_endpoint, ONE):
        quiet_client.send(line(SENSELESS[what]))
        error = quiet_client.message()
        assert error["error"] == "invalid"
        assert error["text"]
        assert quiet_client.is_served()


def test_text_that_can_not_be_is_told_by_its_name(quiet_client: LockClient) -> None:
    """And by the character; what is merely strange is taken."""
    request = {"semaphore": "1234collectPayment", "owner": "me", "ttl": 60}
    error = quiet_client.ask("acquire", holder="a\tb", **request)
    assert error["text"] == (
        "holder has no control characters or lone surrogates, this one has '\\t'."
    )
    assert quiet_client.acquire("1234collectPayment", holder="h" * 999 + "\N{SNOWMAN}")
    assert quiet_client.release("1234collectPayment")


SENSELESS_LEASES: dict[str, Any] = {
    "another type": "1234collectPayment",
    "something more": [*LEASE, None],
    "semaphore that can't be": ["", *LEASE[1:]],
    "no owner": ["1234collectPayment", "", *LEASE[2:]],
    "short ttl": ["1234collectPayment", "me", 0, 1, ""],
    "endless ttl": ["1234collectPayment", "me", 10**400, 1, ""],
    "token that is none": ["1234collectPayment", "me", 60, 2**62, ""],
    "long holder": [*LEASE[:4], "h" * 1_001],
    "holder with a control character": [*LEASE[:4], "\x1b[2J"],
}


@pytest.mark.parametrize("what", SENSELESS_LEASES)
def test_senseless_lease_costs_those_beside_it_nothing(quiet_client: LockClient, what: str) -> None:
    """It is told so, and they are renewed."""
    token = quiet_client.acquire("1234collectPayment")
    leases = [
        ["1234collectPayment", "me", 100, token, ""],
        SENSELESS_LEASES[what],
        ["5678collectPayment", "me", 100, token, ""],
    ]
    end, error, lost = quiet_client.ask("renew", leases=leases)["expires_at"]
    assert end - token > 99_000_000
    assert error["error"] == "invalid"
    assert error["text"]
    assert lost is None
    assert quiet_client.release("1234collectPayment")


@pytest.mark.parametrize("name", ["process", "bound"])
@pytest.mark.parametrize("process", [TWO, 7])
def test_process_that_does_not_listen_is_not_known(
    quiet_endpoint: Endpoint, quiet_client: LockClient, name: str, process: object
) -> None:
    """It can neither wait nor hold what would end with it."""
    do = "join" if name == "process" else "acquire"
    with friend(quiet_endpoint, ONE):
        request = {
            "semaphore": "1234collectPayment",
            "owner": "me",
            "ttl": 60,
            "number": 1,
            name: process,
        }
        assert quiet_client.ask(do, **request)["error"] == "process"
        assert quiet_client.is_served()


def test_status_says_what_there_is(quiet_endpoint: Endpoint, quiet_client: LockClient) -> None:
    """For an operator."""
    with friend(quiet_endpoint, ONE):
        quiet_client.acquire("1234collectPayment")
        quiet_client.ask(
            "join", semaphore="1234collectPayment", owner="other", process=ONE, number=1
        )
        status = quiet_client.ask("status")
        assert status.pop("up") > 0
        assert status.pop("limits")["max_ttl"] == 100_000
        counts = {"locks": 1, "waiters": 1, "connections": 2, "processes": 1}
        assert status == {"version": 1, "grace": 0, **counts}
        quiet_client.ask("leave", semaphore="1234collectPayment", owner="other")
        quiet_client.release("1234collectPayment")


# What is held


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
    """Each once, in no order."""
    pages = listed(many)
    assert [len(page) for page in pages] == [1_000, 1_000, 500]
    names = sorted(name for page in pages for name in page)
    assert names == sorted(f"{'b' if each % 25 else 'a'}{each:04}" for each in range(2_500))
    assert [len(page) for page in listed(many, prefix="a")] == [100]
    assert listed(many, prefix="c") == [[]]


def test_first_locks_are_listed_by_name(many: LockClient) -> None:
    """With what there is to say of each, but not with its owner."""
    answer = many.ask("held", prefix="b", limit=3)
    assert [lock[0] for lock in answer["locks"]] == ["b0001", "b0002", "b0003"]
    assert answer["cursor"] is None
    for _, token, holder, acquired_at, left in answer["locks"]:
        assert (token, holder) == (acquired_at, "host")
        assert acquired_at <= answer["now"]
        assert 0 < left <= 1_000
    assert len(many.ask("held", limit=1_000)["locks"]) == 1_000
    assert many.ask("held", limit=0)["locks"] == []


def test_cursor_is_not_sent_back_to_who_has_a_limit(many: LockClient) -> None:
    """Whatever it is: 1e999 would come back as what is no JSON."""
    many.send(b'{"do":"held","limit":1,"cursor":1e999}\n')
    assert many.message()["cursor"] is None


def test_listing_that_is_left_off_is_forgotten_for_others(many: LockClient) -> None:
    """Sixteen may be under way; who goes on with an older one is told to begin anew."""
    cursors = [many.ask("held")["cursor"] for _ in range(17)]
    assert many.ask("held", cursor=cursors[0])["error"] == "refused"
    answers = [many.ask("held", cursor=cursor) for cursor in cursors[1:]]
    assert [len(answer["locks"]) for answer in answers] == [1_000] * 16
    last = [many.ask("held", cursor=answer["cursor"]) for answer in answers]
    assert [(len(answer["locks"]), answer["cursor"]) for answer in last] == [(500, None)] * 16
    assert many.ask("held", cursor=cursors[1])["error"] == "refused"
    assert many.ask("held", cursor="1")["error"] == "refused"


def test_page_of_the_longest_names_is_not_too_long_for_who_reads(quiet_client: LockClient) -> None:
    """It is not taken for answers that are left unread."""
    wide = "\U0001f512"
    names = [f"{number:03}".ljust(255, wide) for number in range(PAGE)]
    for name in names:
        quiet_client.acquire(name, holder=wide * 1_000)
    [page] = listed(quiet_client)
    assert sorted(page) == names
    assert all(quiet_client.release(name) for name in names)


# Who waits


def join(client: LockClient, process: str, number: int, owner: str, **members: Any) -> None:
    """Let one of the process wait for the lock."""
    request = {
        "semaphore": "1234collectPayment",
        "owner": owner,
        "process": process,
        "number": number,
    }
    answer = client.ask("join", **request | members)
    assert answer["left"] is None or answer["left"] >= 0


def test_who_waits_is_offered_the_lock_in_order_whatever_his_process(
    quiet_endpoint: Endpoint, quiet_client: LockClient
) -> None:
    """The offer comes by itself, on the connection on which his process listens."""
    quiet_client.acquire("1234collectPayment", "holder")
    with friend(quiet_endpoint, ONE) as one, friend(quiet_endpoint, TWO) as two:
        waiting = [(one, ONE, 7), (two, TWO, 7), (one, ONE, 8), (two, TWO, 6)]
        for index, (_, process, number) in enumerate(waiting):
            join(quiet_client, process, number, f"waiter {index}")
        owner = "holder"
        for index, (listening, _, number) in enumerate(waiting):
            assert not one.has_something()
            assert not two.has_something()
            assert quiet_client.release("1234collectPayment", owner) == 2
            assert listening.message() == {"offer": number}
            assert quiet_client.acquire("1234collectPayment", "newcomer") == 0
            owner = f"waiter {index}"
            assert quiet_client.acquire("1234collectPayment", owner) > 0
        assert quiet_client.release("1234collectPayment", owner) == 1


def test_lock_that_ends_by_itself_is_offered(
    quiet_endpoint: Endpoint, quiet_client: LockClient
) -> None:
    """Nobody has to ask for anything at that moment."""
    quiet_client.acquire("1234collectPayment", "holder", ttl=0.1)
    with friend(quiet_endpoint, ONE) as one:
        join(quiet_client, ONE, 1, "waiter")
        assert one.message() == {"offer": 1}
        quiet_client.ask("leave", semaphore="1234collectPayment", owner="waiter")


def test_what_a_process_waits_for_and_is_bound_to_it_ends_with_its_connection(
    quiet_endpoint: Endpoint, quiet_client: LockClient
) -> None:
    """At once; what is not bound to it stays."""
    with friend(quiet_endpoint, TWO) as two:
        with friend(quiet_endpoint, ONE) as one:
            for name in ("bound", "bound by renewal", "other"):
                bound = {"bound": ONE} if name == "bound" else {}
                token = quiet_client.acquire(name, ttl=90_000, **bound)
                if name == "bound by renewal":
                    assert quiet_client.renew([name, "me", 90_000, token, ""], bound=ONE) == [True]
                join(one, TWO, len(name), f"next of {name}", semaphore=name)
            quiet_client.acquire("1234collectPayment", "holder")
            join(quiet_client, ONE, 1, "gone")
            join(quiet_client, TWO, 2, "there")
        offers = [two.message()["offer"] for _ in range(2)]
        assert sorted(offers) == [len("bound"), len("bound by renewal")]
        assert quiet_client.ask("status")["processes"] == 1
        assert quiet_client.release("1234collectPayment", "holder") == 2
        assert two.message() == {"offer": 2}
        assert quiet_client.acquire("1234collectPayment", "there") > 0
        assert quiet_client.release("other") == 2
        assert two.message() == {"offer": len("other")}
        quiet_client.release("1234collectPayment", "there")


def test_second_connection_of_a_process_takes_over(
    quiet_endpoint: Endpoint, quiet_client: LockClient
) -> None:
    """Nothing is lost with the first one, whose end is none of the process."""
    quiet_client.acquire("1234collectPayment", "holder")
    with friend(quiet_endpoint, ONE) as first:
        assert quiet_client.acquire("bound", bound=ONE)
        join(quiet_client, ONE, 1, "waiter")
        second = friend(quiet_endpoint, ONE)
    with second:
        until(lambda: quiet_client.ask("status")["connections"] == 2)
        status = quiet_client.ask("status")
        assert (status["locks"], status["waiters"], status["processes"]) == (2, 1, 1)
        join(quiet_client, ONE, 1, "waiter")
        assert quiet_client.release("1234collectPayment", "holder") == 2
        assert second.message() == {"offer": 1}
        assert first.offers == []
        join(quiet_client, ONE, 3, "waiter")
        assert second.message() == {"offer": 3}  # he may not have heard of the first one
    until(lambda: quiet_client.ask("status")["locks"] == 0)


def test_first_connection_of_a_process_may_outlast_the_second(
    quiet_endpoint: Endpoint, quiet_client: LockClient
) -> None:
    """It is one as others are, then."""
    with friend(quiet_endpoint, ONE) as first:
        with friend(quiet_endpoint, ONE):
            assert quiet_client.acquire("bound", bound=ONE)
        until(lambda: quiet_client.ask("status")["processes"] == 0)
        assert quiet_client.ask("status")["locks"] == 0
        assert first.is_served()
    until(lambda: quiet_client.ask("status")["connections"] == 1)


def test_process_that_was_told_the_end_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it hasn't closed its connection yet."""
    monkeypatch.setattr(connection, "CLOSE_TIMEOUT", 60)
    with Serving() as running, friend(running.endpoint) as client:
        with friend(running.endpoint, ONE) as one, friend(running.endpoint, TWO) as two:
            client.acquire("1234collectPayment", "holder")
            join(client, ONE, 1, "gone")
            join(client, TWO, 2, "there")
            assert one.last_word_after(b"?\n") == "frame"
            assert client.release("1234collectPayment", "holder") == 2
            assert two.message() == {"offer": 2}
            assert client.ask("status")["waiters"] == 1


def test_who_does_not_take_what_he_is_offered_is_passed_over() -> None:
    """After a second; he stays in the queue."""
    with Serving() as running:
        with friend(running.endpoint, ONE) as one, friend(running.endpoint, TWO) as two:
            one.acquire("1234collectPayment", "holder")
            join(one, ONE, 1, "asleep")
            join(one, TWO, 2, "awake")
            assert one.release("1234collectPayment", "holder") == 2
            assert one.offers == [1]
            running.let_pass(OFFER_SECONDS)
            assert two.message() == {"offer": 2}
            assert two.ask("status")["waiters"] == 2


# After a restart


def test_nothing_is_granted_after_a_start_without_a_table() -> None:
    """Who asks is told that it is no answer; the status says for how long."""
    with start_lock_server("--max-ttl", "1000", grace=True) as running:
        with friend(endpoint_of(running)) as client:
            answer = client.ask("acquire", semaphore="1234collectPayment", owner="me", ttl=60)
            assert answer["error"] == "refused"
            assert "restart" in answer["text"]
            assert 900 < client.ask("status")["grace"] <= 1_000
            assert client.renew(["1234collectPayment", "me", 60, 7, ""]) == [True]


@pytest.fixture
def restarted() -> Iterator[Serving]:
    """Run a server that grants nothing for 300 seconds."""
    with Serving(grace=300, max_ttl=300) as running:
        yield running


@pytest.fixture
def holder(restarted: Serving) -> Iterator[LockClient]:
    """Return a client of that server."""
    with friend(restarted.endpoint) as client:
        yield client


def test_holders_reclaim_what_they_have_and_the_highest_token_wins(
    restarted: Serving, holder: LockClient
) -> None:
    """Whichever comes first; and the tokens rise above it."""
    ahead = time.time_ns() // 1000 + HOUR
    assert holder.renew(["1234collectPayment", "old", 300, ahead - 1, ""]) == [True]
    assert holder.renew(
        ["1234collectPayment", "new", 300, ahead, ""],
        ["1234collectPayment", "old", 300, ahead - 1, ""],
    ) == [
        True,
        False,
    ]
    assert holder.renew(["5678collectPayment", "no token", 300, None, ""]) == [False]
    assert holder.acquire("1234collectPayment", "new") == ahead
    assert holder.acquire("1234collectPayment", "other") == 0
    assert (
        holder.ask("acquire", semaphore="5678collectPayment", owner="me", ttl=60)["error"]
        == "refused"
    )
    restarted.let_pass(301)
    assert holder.acquire("5678collectPayment") == ahead + 1
    assert holder.acquire("1234collectPayment") == ahead + 2


def test_token_that_cannot_have_been_granted_is_not_taken_from_a_holder(
    restarted: Serving, holder: LockClient
) -> None:
    """Who knows the secret could else keep all others from renewing what they get later."""
    now = time.time_ns() // 1000
    believed, beyond = now + 23 * HOUR, now + 25 * HOUR
    leases = [
        ["1234collectPayment", "other", 300, 2**62 - 1, ""],
        ["5678collectPayment", "other", 300, beyond, ""],
    ]
    *errors, held = holder.ask(
        "renew", leases=[*leases, ["9012collectPayment", "me", 300, believed, ""]]
    )["expires_at"]
    for error in errors:
        assert error["error"] == "refused"
        assert "is more than a day beyond this machine's clock" in error["text"]
    assert held > now
    members = {"semaphore": "1234collectPayment", "owner": "other", "token": beyond, "left": 100}
    assert holder.ask("release", **members)["error"] == "refused"
    assert holder.renew(
        ["1234collectPayment", "me", 300, now, ""], ["5678collectPayment", "me", 300, now, ""]
    ) == [True, True]
    restarted.let_pass(300)
    token = holder.acquire("d")
    assert token == believed + 1
    [lock] = holder.ask("held", prefix="d")["locks"]
    assert lock[1] == token
    assert holder.renew(["d", "me", 300, token, ""]) == [True]


def test_lease_is_renewed_though_the_clock_was_set_back_by_a_year(
    restarted: Serving, holder: LockClient
) -> None:
    """The server has it in its table, whatever the token is by now."""
    restarted.let_pass(300)
    token = holder.acquire("1234collectPayment")
    table = restarted.service.table
    year = 365 * 24 * HOUR
    now = table.microseconds
    restarted.call(lambda: setattr(table, "microseconds", lambda: now() - year))
    assert holder.renew(["1234collectPayment", "me", 300, token, ""]) == [True]
    assert holder.ask("force_release", semaphore="1234collectPayment", token=token) == {
        "released": 1
    }
    assert holder.acquire("1234collectPayment") == token + 1


def test_who_waits_after_a_restart_is_offered_the_lock_when_that_can_be(
    restarted: Serving, holder: LockClient
) -> None:
    """What is free at the end of the grace, and what is not, later."""
    with friend(restarted.endpoint, ONE) as one:
        assert holder.renew(["a", "holder", 300, 7, ""]) == [True]
        restarted.let_pass(100)
        assert holder.renew(["a", "holder", 300, 7, ""]) == [True]
        for number, name in enumerate("ab"):
            request = {"owner": "waiter", "process": ONE, "number": number}
            left = holder.ask("join", semaphore=name, **request)["left"]
            assert left == pytest.approx(300 if name == "a" else 200)
        restarted.let_pass(199)
        assert not one.has_something()
        assert holder.ask("acquire", semaphore="b", owner="waiter", ttl=9)["error"] == "refused"
        restarted.let_pass(1)
        assert one.message() == {"offer": 1}
        assert holder.acquire("b", "waiter") > 0
        restarted.let_pass(100)
        assert one.message() == {"offer": 0}


def test_lease_that_was_released_is_not_reclaimed(restarted: Serving, holder: LockClient) -> None:
    """By a renewal that was on its way; whether or not the server knew of it before."""
    lease, other = (
        ["1234collectPayment", "me", 300, 7, ""],
        ["5678collectPayment", "me", 300, 7, ""],
    )
    assert holder.renew(lease) == [True]
    assert holder.release("1234collectPayment", token=7, left=100) == 1
    assert holder.release("5678collectPayment", token=7, left=100) == 1
    assert holder.renew(lease, other) == [False, False]
    assert holder.release("5678collectPayment", token=7, left=100) == 0
    assert (
        holder.ask("acquire", semaphore="1234collectPayment", owner="other", ttl=9)["error"]
        == "refused"
    )
    restarted.let_pass(300)
    assert holder.acquire("1234collectPayment", "other") > 7
    assert holder.acquire("5678collectPayment", "other") > 7


def test_lease_that_was_taken_away_is_not_reclaimed(restarted: Serving, holder: LockClient) -> None:
    """By the next renewal of who had it; but one with a higher token is."""
    assert holder.renew(["1234collectPayment", "me", 300, 7, ""]) == [True]
    assert holder.ask("force_release", semaphore="1234collectPayment", token=7) == {"released": 1}
    assert holder.renew(["1234collectPayment", "me", 300, 7, ""]) == [False]
    assert holder.ask("held", prefix="")["locks"] == []
    assert holder.renew(["1234collectPayment", "successor", 300, 8, ""]) == [True]


@pytest.mark.parametrize("members", [{}, {"token": 7}, {"left": 9}, {"token": 7, "left": 0}])
def test_lease_that_had_ended_is_not_released(holder: LockClient, members: dict[str, Any]) -> None:
    """Nor is one without its token: nobody knows whose it is."""
    assert holder.release("1234collectPayment", **members) == 0


def test_release_after_a_restart_does_not_take_the_lock_from_its_successor(
    holder: LockClient,
) -> None:
    """Who has it by a higher token."""
    assert holder.renew(["1234collectPayment", "successor", 300, 8, ""]) == [True]
    assert holder.release("1234collectPayment", token=7, left=100) == 0
    assert holder.renew(["1234collectPayment", "successor", 300, 8, ""]) == [True]


def test_nothing_is_reclaimed_once_locks_are_granted(
    restarted: Serving, holder: LockClient
) -> None:
    """Neither by a renewal nor by a release."""
    restarted.let_pass(300)
    assert holder.renew(["1234collectPayment", "me", 300, 7, ""]) == [False]
    assert holder.release("1234collectPayment", token=7, left=100) == 0
    assert holder.ask("status")["locks"] == 0
