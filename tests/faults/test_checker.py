"""The judge finds nothing in histories that keep the promises, and each fault in others."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.checker import Fault, Waiver, judge
from tests.faults.history import Operation, read_histories
from tests.faults.holds import Bounds
from tests.faults.imagined_store import BROKEN, ImaginedStore, imagine

pytestmark = pytest.mark.once

BOUNDS = Bounds(service=3)


@given(seed=st.integers(min_value=0), workers=st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_no_fault_is_found_where_there_is_none(seed: int, workers: int) -> None:
    """However the operations overlap, and whichever replies are lost."""
    store = ImaginedStore(Random(seed))
    history = imagine(store, workers)
    assert len(history) > 20
    counters = {"imagined": store.increments}
    assert judge(history, counters=counters, bounds=BOUNDS) == []


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_each_fault_is_found(kind: type[ImaginedStore]) -> None:
    """Within 25 histories of two minutes; what is shown is what is broken, and nothing else."""
    found: set[Fault] = set()
    for seed in range(25):
        store = kind(Random(seed))
        history = imagine(store)
        counters = {"imagined": store.increments}
        found |= {one.fault for one in judge(history, counters=counters, bounds=BOUNDS)}
    assert found == kind.shows


def operation(worker: str, kind: Any, invoked: float, returned: float, **known: Any) -> Operation:
    """Return an operation on the lock that these tests are about; of one owner for each worker."""
    fields = {"owner": worker, "ttl": 10.0, "outcome": "ok", **known}
    number = int(invoked * 10)
    return Operation(
        worker=worker,
        number=number,
        semaphore="a",
        operation=kind,
        invoked=invoked,
        returned=returned,
        **fields,
    )


HELD = [operation("A", "acquire", 0, 1, token=5)]
CASES = {
    "a claim ends ttl after the attempt began": (
        [*HELD, operation("B", "acquire", 9, 10, token=6)],
        set(),
    ),
    "a moment earlier it has not ended": (
        [*HELD, operation("B", "acquire", 9, 9.99, token=6)],
        {Fault.OVERLAP},
    ),
    "a claim ends when its release begins": (
        [
            *HELD,
            operation("A", "release", 3, 5),
            operation("B", "acquire", 2, 3.01, token=6),
        ],
        set(),
    ),
    "a renewal counts from its start": (
        [
            *HELD,
            operation("A", "renew", 5, 8),
            operation("B", "acquire", 14, 14.9, token=6),
        ],
        {Fault.OVERLAP},
    ),
    "a renewal without a reply claims nothing": (
        [
            *HELD,
            operation("A", "renew", 5, 8, outcome="unknown"),
            operation("B", "acquire", 10, 11, token=6),
        ],
        set(),
    ),
    "a holder that was told of its loss claims nothing more": (
        [
            *HELD,
            operation("A", "renew", 5, 6, outcome="lost"),
            operation("B", "acquire", 6, 7, token=6),
        ],
        {Fault.LOST_EARLY},
    ),
    "a lease renewed after its end is lost to its holder": (
        [
            *HELD,
            operation("A", "renew", 9, 12, outcome="ok"),
            operation("A", "release", 13, 14, outcome="lost"),
        ],
        set(),
    ),
    "a renewal may find that a release has overtaken it": (
        [*HELD, operation("A", "renew", 3, 6, outcome="lost"), operation("A", "release", 4, 5)],
        set(),
    ),
    "a renewal whose reply comes after the ttl is too late": (
        [
            *HELD,
            operation("A", "renew", 5, 10.5),
            operation("A", "release", 11, 12, outcome="lost"),
        ],
        set(),
    ),
    "tokens of attempts at the same time may come in any order": (
        [
            operation("A", "acquire", 0, 3, token=6),
            operation("A", "release", 3, 4),
            operation("B", "acquire", 0, 5, token=5),
        ],
        set(),
    ),
    "a token given again": (
        [*HELD, operation("B", "acquire", 20, 21, token=5)],
        {Fault.TOKEN_ORDER},
    ),
    "a release of a lease that another owner has got since": (
        [
            *HELD,
            operation("B", "acquire", 12, 13, token=6),
            operation("A", "release", 14, 15),
        ],
        {Fault.OWN_RELEASE, Fault.AFTER_EXPIRY},
    ),
    "a lease released twice": (
        [*HELD, operation("A", "release", 2, 3), operation("A", "release", 4, 5)],
        {Fault.OWN_RELEASE},
    ),
    "refused by a holder without a known reply": (
        [
            operation("A", "acquire", 0, 1, outcome="unknown", owner=None),
            operation("B", "acquire", 5, 6, outcome="refused"),
        ],
        set(),
    ),
    "refused though the last holder was gone for long": (
        [
            *HELD,
            operation("A", "release", 2, 3),
            operation("B", "acquire", 6.5, 7, outcome="refused"),
        ],
        {Fault.REFUSED_FREE},
    ),
    "refused before the timeout": (
        [*HELD, operation("B", "acquire", 2, 5, outcome="refused", timeout=4)],
        {Fault.REFUSED_EARLY},
    ),
    "refused without a timeout": (
        [*HELD, operation("B", "acquire", 2, 9, outcome="refused", timeout=None)],
        {Fault.REFUSED_EARLY},
    ),
    "a waiter that a free lock did not reach": (
        [
            *HELD,
            operation("A", "release", 2, 3),
            operation("B", "acquire", 2, 12, token=6, timeout=30),
        ],
        {Fault.NOT_SERVED},
    ),
    "two increments that wrote one value": (
        [
            *HELD,
            operation("A", "increment", 2, 3, value=8),
            operation("A", "increment", 4, 5, value=8),
        ],
        {Fault.LOST_UPDATE},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_judgement(case: str) -> None:
    """Each rule, to the moment."""
    history, faults = CASES[case]
    assert {one.fault for one in judge(history, bounds=BOUNDS)} == faults


def test_dead_worker_may_have_renewed_until_its_end() -> None:
    """A lease renewed in the background lasts until then, and for its ttl."""
    history = [
        operation("A", "acquire", 0, 1, background=True),
        operation("B", "acquire", 120, 121, outcome="refused"),
    ]
    assert judge(history, bounds=BOUNDS) == []
    end = operation("A", "exit", 30, 30)
    assert {one.fault for one in judge([*history, end], bounds=BOUNDS)} == {Fault.REFUSED_FREE}


def test_waiver_excuses_its_faults_in_its_time() -> None:
    """Nothing else, and the release of somebody else's lease never."""
    history = [*HELD, operation("B", "acquire", 4, 5, token=6)]
    [overlap] = judge(history, bounds=BOUNDS)
    assert "two holders at once at 5.000000: 'a'" in str(overlap)
    for faults, start, end, left in [
        ({Fault.OVERLAP}, 3, 5, []),
        ({Fault.OVERLAP}, 3, 4.9, [overlap]),
        ({Fault.TOKEN_ORDER}, 3, 5, [overlap]),
    ]:
        waiver = Waiver(frozenset(faults), start, end, "the store forgets")
        assert judge(history, bounds=BOUNDS, waivers=[waiver]) == left
    with pytest.raises(ValueError, match="Nothing excuses"):
        Waiver(frozenset({Fault.OWN_RELEASE}), 0, 1, "")


KILLED = """
import os, pathlib, signal, sys
from tests.faults.history import HistoryFile
file = HistoryFile(pathlib.Path(sys.argv[1]), "A")
file.end(file.begin("acquire", "a", ttl=2), "ok", owner="x", token=5)
file.begin("release", "a", owner="x")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_worker_leaves_whole_lines(tmp_path: Path) -> None:
    """What did not return is unknown."""
    path = tmp_path / "A.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, path], env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL
    acquired, released = read_histories([path])
    assert (acquired.outcome, acquired.owner, acquired.token, acquired.ttl) == ("ok", "x", 5, 2)
    assert acquired.invoked <= acquired.returned <= released.invoked
    assert (released.outcome, released.returned) == ("unknown", float("inf"))
