"""The locks that a lock server saves at an orderly stop, and the next one restores."""

from __future__ import annotations

import os
import signal
import stat
from contextlib import suppress

import pytest

from tests.support.concurrency import until
from tests.support.lock_server_command import Place
from tests.support.lock_server_state import FRESH, LONG, NOTHING_YET, change, content, leave

pytestmark = pytest.mark.once


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_orderly_stop_saves_the_locks_for_the_next_server(
    place: Place, number: signal.Signals
) -> None:
    """It has them at once, with their owners, and its tokens are greater.

    The remains of an interrupted write, which others might read, don't matter.
    """
    with place.start(*FRESH) as running:
        running.serve()
        [first, *_] = place.acquire("1234collectPayment", "5678collectPayment", "kept")
        place.release("kept", keep=500)
        unfinished = place.state.with_name(f"{place.state.name}.new")
        unfinished.touch(mode=0o644)
        running.process.send_signal(number)
        assert running.end() == (0, f"Stopped. Locks saved in {place.state}: 3.\n", "")
    assert stat.S_IMODE(place.state.stat().st_mode) == 0o600
    assert not unfinished.exists()
    with place.start(*LONG) as running:
        said = running.serve()
        assert f"Locks of the earlier server in {place.state}: 3.\n" in said
        assert NOTHING_YET not in said
        held = place.held()
        assert list(held) == ["1234collectPayment", "5678collectPayment", "kept"]
        assert 900 < held["1234collectPayment"] < 1000
        assert 400 < held["kept"] < 500
        assert not place.acquire("1234collectPayment", "kept", owner="another")
        assert place.acquire("1234collectPayment") == [first]
        place.release("1234collectPayment", "5678collectPayment")
        assert place.acquire("1234collectPayment", owner="another")[0] > first


def test_offer_is_not_saved(place: Place) -> None:
    """The waiter joins again; until then nobody holds the lock."""
    with place.start(*FRESH) as running:
        running.serve()
        place.acquire("1234collectPayment", "5678collectPayment")
        with place.store() as store:
            wire = store.server.connect(60, "0" * 32)
            join = {"do": "join", "semaphore": "1234collectPayment", "owner": "next", "number": 1}
            wire.send([join | {"process": "0" * 32}])
            assert "left" in wire.receive()
            place.release("1234collectPayment")
            assert wire.receive() == {"offer": 1}
            assert running.stop()[0] == 0
            wire.close()
    assert [semaphore for semaphore, *_ in content(place)["locks"]] == ["5678collectPayment"]


def test_time_goes_on_while_no_server_runs(place: Place) -> None:
    """Expired locks are free, and the others last no longer than before."""
    leave(place, semaphores=("1234collectPayment",))
    found = content(place)
    [lock] = found["locks"]
    change(
        place,
        at=found["at"] - 600,
        locks=[lock, ["5678collectPayment", "owner", lock[2], "a host", lock[4], 500.0, 0]],
    )
    with place.start(*LONG) as running:
        running.serve()
        assert list(place.held()) == ["1234collectPayment"]
        assert 300 < place.held()["1234collectPayment"] < 400


def test_stop_while_the_state_is_read_loses_nothing(place: Place) -> None:
    """However long that takes: here from a pipe that isn't written to yet."""
    leave(place)
    text = place.state.read_bytes()
    place.state.unlink()
    os.mkfifo(place.state)
    with place.start(*LONG) as running:
        end = -1

        def is_read() -> bool:
            nonlocal end
            with suppress(OSError):
                end = os.open(place.state, os.O_WRONLY | os.O_NONBLOCK)
            return end >= 0

        until(is_read)
        running.process.terminate()
        with os.fdopen(end, "wb") as pipe:
            pipe.write(text)
        assert running.end()[::2] == (0, "")
    assert [semaphore for semaphore, *_ in content(place)["locks"]] == ["1234collectPayment"]


def test_stop_as_soon_as_the_file_has_no_table_loses_nothing(place: Place) -> None:
    """A stop may come before anything is served."""
    leave(place)
    with place.start(*LONG) as running:
        until(lambda: content(place)["locks"] is None)
        assert running.stop()[0] == 0
    assert [semaphore for semaphore, *_ in content(place)["locks"]] == ["1234collectPayment"]


def test_start_that_fails_loses_nothing(place: Place, unused_port: int) -> None:
    """Neither the table nor the rest of the grace."""
    leave(place)
    change(place, grace=900)
    other = Place(place.directory, unused_port)
    other.state = place.directory / "another state"
    other.address = place.address
    with other.start() as running:
        running.serve()
        with place.start(*LONG) as refused:
            assert "address already in use" in refused.refusal()
    assert [semaphore for semaphore, *_ in content(place)["locks"]] == ["1234collectPayment"]
    assert 800 < content(place)["grace"] < 900
