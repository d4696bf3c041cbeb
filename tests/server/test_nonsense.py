"""A lock server answers thousands of nonsensical messages by errors, and grants nothing."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_distlock.server.requests import ACTIONS
from tests.support.concurrency import until
from tests.support.lock_client import Endpoint, LockClient, endpoint_of, friend, line, proof
from tests.support.lock_servers import flawless_lock_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.servers import Server

pytestmark = [pytest.mark.needs("lock_server"), pytest.mark.once]

PROCESS = "1" * 32
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Other work on this machine makes anything slow."""


@pytest.fixture(scope="module")
def lock_server_without_failures() -> Iterator[Server]:
    """Run a server, whose log has no failure at the end."""
    with flawless_lock_server() as running:
        yield running


SHORTEST = 1_000
"""Seconds: what is granted here doesn't end in between."""

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**53, 2**62, 2**63, 10**400, -(10**400)])
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=8)
)
anything: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
SEMAPHORES = ["1234collectPayment", "5678collectPayment", "é", "🔒", "x" * 255]
OWNERS = ["one", "two"]
LAST = "the last token"
RIGHT: dict[str, list[Any]] = {
    "semaphore": SEMAPHORES,
    "owner": OWNERS,
    "ttl": [SHORTEST, 99_999.5],
    "holder": ["host", "höst"],
    "bound": [None, PROCESS],
    "keep": [0],
    "left": [SHORTEST],
    "token": [LAST],
    "process": [PROCESS],
    "number": [1, 2, -3],
    "prefix": ["", "1234collectPayment"],
    "limit": [None, 0, 3],
    "cursor": [None, 1],
    "page": [1, 2],
    "window": [1, 10_000],
    "search": ["", "COLLECT"],
    "seconds": [None, 60],
    "reason": ["", "deploy"],
    "by": ["root"],
    "leases": [[], [[semaphore, "one", SHORTEST, 7, ""] for semaphore in SEMAPHORES]],
}
RAW = [
    *(b"", b"{}", b"[]", b"\xff", b"GET / HTTP/1.1", b'{"do":NaN}', b'{"do":1e999}'),
    *(b"[" * 60_000, b'{"do":"ping","do":"acquire"}', b'{"do":"ping"}' * 2),
]


def compose(random: Random, values: list[Any]) -> dict[str, Any] | bytes:
    """Return a request whose members are right, wrong or missing; or something else."""
    if random.random() < 0.05:
        return random.choice(RAW)
    wrong = random.choice([0.0, 0.05, 0.3])
    request = {"do": random.choice([*ACTIONS, "acquire"] if random.random() > wrong else values)}
    for name, right in RIGHT.items():
        among = right if random.random() >= wrong else values
        request[name] = among_those(random, name, among)
        if random.random() < wrong:
            del request[name]
    return request


def among_those(random: Random, name: str, values: list[Any]) -> Any:
    """Return one of the values; no granted ttl ends within the test."""
    value = random.choice(values)
    if name == "leases" and random.random() < 0.5:
        lease = [random.choice(SEMAPHORES), random.choice(OWNERS), SHORTEST, 7, ""]
        lease[random.randrange(5)] = SHORTEST if is_within(value, 0, SHORTEST) else value
        return [lease, *RIGHT["leases"][1]]
    longest = {"ttl": SHORTEST, "left": SHORTEST, "keep": 10**9}.get(name, 0)
    return 0 if is_within(value, 0, longest) else value


def is_within(value: Any, low: float, high: float) -> bool:
    """Return whether it is a number between these."""
    return type(value) in (int, float) and low < value < high


class Nonsense:
    """What was sent, and the grants that it may have caused."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.client = friend(endpoint)
        self.holders: dict[str, tuple[str, int]] = {}
        self.last = 0
        self.frames = self.grants = 0

    def send(self, frame: dict[str, Any] | bytes, *, escaped: bool) -> None:
        """Send it, and check the answer."""
        self.frames += 1
        request: dict[str, Any] = {}
        if isinstance(frame, dict):
            request = {name: self.last if value == LAST else value for name, value in frame.items()}
            frame = json.dumps(request, ensure_ascii=escaped).encode(errors="surrogatepass")
        self.client.send(frame + b"\n")
        answer = self.client.answer()
        if "error" not in answer:
            getattr(self, f"see_{request.get('do')}", self.see_nothing)(request, answer)
        elif answer["error"] == "frame":
            assert self.client.read() is None
            self.client.close()
            self.client = friend(self.endpoint)
        else:
            assert answer["error"] in ("invalid", "process", "refused")

    def see_nothing(self, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Expect no grant from a request that doesn't ask for one."""
        assert "token" not in answer

    def see_acquire(self, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Expect a grant only of a free lock, or of this owner's."""
        token = answer["token"]
        if token is None:
            return
        semaphore, owner = request["semaphore"], request["owner"]
        assert 0.001 <= request["ttl"] <= 100_000
        held = self.holders.get(semaphore)
        if held is not None:
            assert held == (owner, token)
        self.grants += 1
        self.holders[semaphore] = owner, token
        self.last = max(self.last, token)

    def see_pause(self, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Resume it, for the sake of the other requests."""
        assert self.client.ask("resume", prefix=request.get("prefix", "")) == {"resumed": 1}

    def see_release(self, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Expect that only its owner releases it."""
        semaphore = request["semaphore"]
        if answer["released"] and semaphore in self.holders:
            assert self.holders.pop(semaphore)[0] == request["owner"]

    def see_force_release(self, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Expect that only its token force-releases it."""
        semaphore = request["semaphore"]
        if answer["released"] and semaphore in self.holders:
            assert self.holders.pop(semaphore)[1] == request["token"]

    def see_renew(self, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Expect that nothing of another owner's is renewed."""
        for lease, end in zip(request["leases"], answer["expires_at"], strict=True):
            if end is None or type(end) is dict:
                assert end is None or end["error"] in ("invalid", "refused")
            elif lease[0] in self.holders:
                assert self.holders[lease[0]][0] == lease[1]


@pytest.fixture(scope="module")
def nonsense(lock_server_without_failures: Server) -> Iterator[Nonsense]:
    """Send thousands of frames; afterwards, the server must be as it was before."""
    endpoint = endpoint_of(lock_server_without_failures)
    with friend(endpoint, PROCESS) as listening:
        found = Nonsense(endpoint)
        yield found
        assert listening.is_served()
    client = found.client
    with client:
        until(lambda: client.ask("status")["processes"] == 0)
        assert client.ask("status")["waiters"] == 0
        client.acquire("one, if none is left")
        for semaphore, token, *_ in client.ask("held")["locks"]:
            client.ask("force_release", semaphore=semaphore, token=token)
        status = client.ask("status")
        assert (status["locks"], status["connections"]) == (0, 1)
    assert found.frames > 3_000
    assert found.grants > 100


@given(st.lists(anything, min_size=1, max_size=20), st.integers(0, 2**32))
@settings(PATIENT, max_examples=40)
def test_nonsense_is_an_error_and_grants_nothing(
    nonsense: Nonsense, values: list[Any], seed: int
) -> None:
    """Whatever an authenticated client sends."""
    random = Random(seed)
    for _ in range(100):
        nonsense.send(compose(random, values), escaped=random.random() < 0.5)


hellos = st.fixed_dictionaries(
    {},
    optional={
        "distlock": st.just(1) | anything,
        "nonce": st.text(max_size=8) | anything,
        "answer": st.text("0123456789abcdef", min_size=64, max_size=64) | anything,
        "process": st.none() | st.just("2" * 32) | anything,
    },
)


@given(hellos | st.sampled_from(RAW))
@settings(PATIENT, max_examples=100)
def test_nonsense_does_not_authenticate(
    lock_server_without_failures: Server, hello: dict[str, Any] | bytes
) -> None:
    """An unauthenticated client may send only one frame."""
    with LockClient(endpoint_of(lock_server_without_failures)) as client:
        client.message()
        frame = hello if isinstance(hello, bytes) else json.dumps(hello).encode()
        client.send(frame + b"\n" + line({"do": "status"}))
        assert client.last_word() in ("frame", "version", "secret")


@given(st.text(st.characters(exclude_categories=()), max_size=8), anything)
@settings(PATIENT, max_examples=60)
def test_nonsense_with_the_secret_is_a_handshake_or_an_error(
    lock_server_without_failures: Server, nonce: str, process: object
) -> None:
    """Any text is a nonce; the process's name has to be valid."""
    endpoint = endpoint_of(lock_server_without_failures)
    with LockClient(endpoint) as client:
        answer = proof(endpoint.secret, "client", client.message()["challenge"], nonce)
        hello = {"distlock": 1, "nonce": nonce, "answer": answer, "process": process}
        client.send(line(hello))
        found = client.message()
        if process is None:
            assert "proof" in found
        else:
            assert found["error"] in ("invalid", "frame")


DEEP: dict[str, Callable[[bytes], bytes]] = {
    "do": lambda value: b'{"do":' + value + b"}",
    "semaphore": lambda value: b'{"do":"leave","owner":"me","semaphore":' + value + b"}",
    "ttl": lambda value: b'{"do":"acquire","owner":"me","semaphore":"a","ttl":' + value + b"}",
    "lease": lambda value: b'{"do":"renew","leases":[["a","me",' + value + b',1,""]]}',
    "cursor": lambda value: b'{"do":"held","limit":0,"cursor":' + value + b"}",
    "process": lambda value: (
        b'{"do":"acquire","semaphore":"a","owner":"me","ttl":9,"bound":' + value + b"}"
    ),
}


@pytest.mark.parametrize("member", DEEP)
@pytest.mark.parametrize("opening", [b"[", b'{"":'], ids=["lists", "objects"])
def test_deepest_nesting_that_is_read_is_an_error_as_others_are(
    lock_server_without_failures: Server, member: str, opening: bytes
) -> None:
    """What the parser accepts can be validated, too."""
    endpoint, closing = (
        endpoint_of(lock_server_without_failures),
        (b"]" if opening == b"[" else b"}"),
    )

    def code(depth: int) -> str:
        with friend(endpoint) as client:
            client.send(DEEP[member](opening * depth + b"1" + closing * depth) + b"\n")
            return str(client.message().get("error"))

    low, high = 100, 10_800
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if code(middle) == "frame" else (middle, high)
    codes = {code(depth) for depth in range(max(100, low - 15), low + 5)}
    assert codes <= {"frame", "invalid", "process", "None"}
    with friend(endpoint) as client:
        assert client.is_served()
