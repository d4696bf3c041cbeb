"""The status of a running server, as printed by --status."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from django.core.management import CommandError

from django_distlock.records import LeaseClaim
from tests.support.concurrency import until
from tests.support.lock_server_command import BACKEND, SECRET, Command, Place, said, server_settings
from tests.support.lock_servers import start_lock_server

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import Server

pytestmark = pytest.mark.once


def status_of(server: Server, *arguments: str) -> list[str]:
    """Return the lines of the server's status."""
    options = server.settings["OPTIONS"]
    place = "--bind", options["address"], "--secret-file", options["secret_file"]
    return said("--status", *place, *arguments).splitlines()


def test_status_of_a_new_server_shows_no_locks(place: Place) -> None:
    """It shows zeros beside the limits, and that the server grants nothing yet."""
    with place.start("--max-ttl", "1000000", "--max-locks", "30") as running:
        running.serve()
        with Command("--status", *place.at) as asking:
            status, answer, complaints = asking.end()
    assert (status, complaints) == (0, "")
    up, *others, grace = answer.splitlines()
    assert up.startswith(f"The lock server at {place.address} has been up for ")
    assert others == [
        "locks: 0 of 30",
        "waiters: 0 of 20000, up to 10000 for a lock",
        "connections: 1 of 2000",
        "leases last 1000000 seconds at most",
    ]
    assert grace.startswith("nothing is granted for 9999")
    assert grace.endswith(" seconds more, after a restart")


def test_status_lists_twenty_locks_and_counts_the_others(place: Place) -> None:
    """By name, with holder and time left; kept locks and waiters, too."""
    with place.start("--no-grace", "--max-ttl", "3600") as running:
        running.serve()
        place.acquire(*(f"{number:02}" for number in range(20)), ttl=3600)
        place.release("19", keep=3000)
        with place.store() as store:
            wire = store.server.connect(60, "0" * 32)
            wire.send(
                [
                    {
                        "do": "join",
                        "semaphore": "00",
                        "owner": "next",
                        "process": "0" * 32,
                        "number": 1,
                    }
                ]
            )
            assert "left" in wire.receive()
            lines = said("--status", *place.at).splitlines()
            assert lines[1:3] == [
                "locks: 20 of 1000000",
                "waiters: 1 of 20000, up to 10000 for a lock",
            ]
            assert lines[5].startswith("00: a host, 59m ")
            assert lines[-1].startswith("19: a host, 49m ")
            assert len(lines) == 5 + 20
            assert store.acquire("20", "nameless", 60, "")
            assert store.release(LeaseClaim("00", "owner", 60))
            wire.close()
            until(lambda: store.status()["locks"] == 20)  # and not the name that was offered there
        lines = said("--status", *place.at).splitlines()
        assert lines[-1].startswith("20: unknown holder, ")
        place.acquire("21", "22")
        assert said("--status", *place.at).endswith("\nand 2 more\n")


def test_status_works_by_tls_however_the_server_is_given(tmp_path: Path) -> None:
    """With the settings' authority, even if address and secret are given; or with a given one."""
    with start_lock_server(tls=True) as server:
        options = server.settings["OPTIONS"]
        authority = options["tls_ca"]
        assert status_of(server, "--tls-ca", authority)[0].endswith("s.")
        distlock = {"a": {"BACKEND": BACKEND, "OPTIONS": options}}
        at = "--bind", options["address"], "--secret-file", options["secret_file"]
        for arguments in ((), at[:2], at[2:], at):
            assert "has been up for" in said("--status", *arguments, **distlock)
        with pytest.raises(CommandError, match=r"--status: .*No such file"):
            said("--status", *at, "--tls-ca", str(tmp_path / "missing"), **distlock)


def test_unneeded_settings_may_be_wrong(place: Place) -> None:
    """As on the server's host, without the site's own files."""
    with place.start() as running:
        running.serve()
        for distlock in (
            {"a": server_settings(secret="short")},
            {"a": server_settings(), "b": server_settings()},
        ):
            assert "has been up for" in said("--status", *place.at, **distlock)


def test_status_of_a_server_that_is_down_or_not_ours_is_one_line(place: Place) -> None:
    """And an exit status."""
    with Command("--status", *place.at) as asking:
        assert asking.refusal() == (
            f"The lock server at {place.address}: [Errno 111] Connection refused"
        )
    with place.start() as running:
        running.serve()
        place.secret_file.write_text(SECRET)
        with Command("--status", *place.at) as asking:
            assert asking.refusal() == (
                f"The lock server at {place.address}: The secret is not the server's."
            )


def test_limits_may_be_parts_of_a_second(place: Place) -> None:
    """A longer lease is refused according to the server's terms."""
    with place.start("--max-ttl", "0.5", "--idle", "60.5", "--no-grace") as running:
        running.serve()
        assert place.acquire("short", ttl=0.5)
        with pytest.raises(ValueError, match=r"ttl is from 0\.001 to 0\.5 seconds"):
            place.acquire("longer", ttl=math.nextafter(0.5, 1))
