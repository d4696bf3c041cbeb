"""The command's server under systemd, and its notifications."""

from __future__ import annotations

import secrets
import socket

import pytest

from tests.support.lock_server_command import Place, systemd_socket
from tests.support.ports import HOST

pytestmark = pytest.mark.once


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_notified_when_the_server_is_ready_and_when_it_stops(
    place: Place, abstract: bool
) -> None:
    """At a path or an abstract name. A server that grants nothing yet is ready, too."""
    name = f"distlock-{secrets.token_hex()}"
    path = f"\0{name}" if abstract else str(place.directory / "notify")
    variable = f"@{name}" if abstract else path
    with systemd_socket(path) as systemd, place.start(NOTIFY_SOCKET=variable) as running:
        assert systemd.recv(64) == b"READY=1"
        assert place.held() == {}
        running.process.terminate()
        assert systemd.recv(64) == b"STOPPING=1"
        assert running.end()[::2] == (0, "")


def test_systemd_that_hears_nothing_does_no_harm(place: Place) -> None:
    """A line on stderr says so."""
    missing = str(place.directory / "missing")
    with place.start(NOTIFY_SOCKET=missing) as running:
        running.serve()
        assert place.held() == {}
        status, _, complained = running.stop()
    assert status == 0
    assert complained.splitlines() == [
        f"{state} can't be sent to NOTIFY_SOCKET: [Errno 2] No such file or directory"
        for state in ("READY=1", "STOPPING=1")
    ]


def test_port_in_use_is_refused(place: Place) -> None:
    """The error names it, and systemd isn't notified that the server is ready."""
    with (
        systemd_socket(place.directory / "notify") as systemd,
        socket.create_server((HOST, int(place.address.rpartition(":")[2]))),
    ):
        with place.start(NOTIFY_SOCKET=str(place.directory / "notify")) as refused:
            complaint = refused.refusal()
        systemd.setblocking(False)
        with pytest.raises(BlockingIOError):
            systemd.recv(64)
    assert complaint.startswith(f"Can't listen at {place.address}: ")
    assert "address already in use" in complaint


def test_output_that_nobody_reads_does_no_harm(place: Place) -> None:
    """The reader of the pipe has left, as a supervisor that was restarted. The locks are saved."""
    with place.start("--no-grace") as running:
        running.serve()
        place.acquire("1234collectPayment", ttl=300)
        assert running.process.stdout is not None
        running.process.stdout.close()
        running.process.stdout = None
        assert running.stop()[::2] == (0, "")
    with place.start() as following:
        following.serve()
        assert list(place.held()) == ["1234collectPayment"]
