"""Files and sockets that only one lock server at a time may use."""

from __future__ import annotations

import signal
import stat
from typing import TYPE_CHECKING

import pytest

from django_distlock.server.path_lock import InUse, PathLock
from tests.support.concurrency import until
from tests.support.lock_server_command import Place
from tests.support.lock_server_state import FRESH, LONG, NOTHING_YET
from tests.support.processes import send_and_wait

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.lock_server_command import Command

pytestmark = pytest.mark.once


def test_second_server_with_one_state_is_refused_at_once(place: Place, unused_port: int) -> None:
    """It would overwrite the first one's state. The first one is not disturbed."""
    other = Place(place.directory, unused_port)
    other.state = place.state
    with place.start(*FRESH) as running:
        running.serve()
        with other.start(*FRESH) as refused:
            assert refused.refusal() == (
                f"Another running lock server uses {place.state}: stop it, or give another path."
            )
        assert place.acquire("1234collectPayment")
        running.kill()
    with other.start(*LONG) as running:
        running.serve()


def test_second_server_at_one_socket_is_refused_at_once(
    unix_place: Place, unused_port: int
) -> None:
    """Even with another state file."""
    other = Place(unix_place.directory, unused_port, unix=True)
    other.state = unix_place.directory / "another state"
    with unix_place.start(*FRESH) as running:
        running.serve()
        with other.start(*FRESH) as refused:
            assert f"uses {unix_place.socket}: stop it" in refused.refusal()
        assert unix_place.acquire("1234collectPayment")


def test_successor_cannot_start_before_a_slow_stop_is_over(unix_place: Place) -> None:
    """So the old server doesn't remove its socket, nor overwrite its state."""
    with unix_place.start(*FRESH) as running:
        running.serve()
        with unix_place.store() as store:
            wire = store.server.connect(60)  # it has another second to be closed
            pause_in_stop(running, unix_place)
            with unix_place.start(*LONG) as refused:
                assert "Another running lock server" in refused.refusal()
            running.process.send_signal(signal.SIGCONT)
            assert running.end()[::2] == (0, "")
            wire.close()
    with unix_place.start(*LONG) as running:
        assert NOTHING_YET not in running.serve()
        assert unix_place.acquire("1234collectPayment")
        assert unix_place.socket.is_socket()


def pause_in_stop(running: Command, place: Place) -> None:
    """Pause a server during its stop, after it has removed its socket."""
    running.process.terminate()
    until(lambda: not place.socket.exists())
    send_and_wait(running.process, signal.SIGSTOP)
    assert running.process.poll() is None


def test_claim_ends_with_its_process_or_before(tmp_path: Path) -> None:
    """It is a file lock of the system on another file, which stays."""
    first = PathLock(tmp_path / "state")
    with pytest.raises(InUse):
        PathLock(tmp_path / "state")
    first.close()
    PathLock(tmp_path / "state").close()
    assert stat.S_IMODE((tmp_path / "state.lock").stat().st_mode) == 0o600
