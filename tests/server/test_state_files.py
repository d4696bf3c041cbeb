"""State files of lock servers: unwritable and unreadable ones, and default places."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command

from django_distlock import clocks
from django_distlock.management.commands import run_lock_server
from django_distlock.server import saved_state
from django_distlock.server.locks import LockSnapshot
from django_distlock.server.pauses import PauseSnapshot
from django_distlock.server.saved_state import StateFile, Unreadable
from tests.support.lock_server_state import FRESH, LONG, crash, in_the_way, leave
from tests.support.lock_servers import write_secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_distlock.server.running import ServerConfig
    from tests.support.lock_server_command import Place

pytestmark = pytest.mark.once


def elapsed(state: StateFile) -> float:
    """Return how long ago it was written, if known."""
    earlier = state.read()
    assert earlier is not None
    return earlier.elapsed


def test_elapsed_time_is_known_within_one_boot_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After another boot the clock restarts: a lease then lasts too long rather than too short."""
    boot = tmp_path / "boot_id"
    boot.write_text("first\n")
    monkeypatch.setattr(saved_state, "BOOT_ID", boot)
    state = StateFile(tmp_path / "state")
    state.write_locks(60, 7, [], [], 0)
    now = clocks.monotonic()
    monkeypatch.setattr(clocks, "monotonic", lambda: now + 30)
    assert 30 <= elapsed(state) < 60
    monkeypatch.setattr(clocks, "monotonic", lambda: now - 30)
    assert elapsed(state) == 0
    monkeypatch.setattr(clocks, "monotonic", lambda: now + 30)
    boot.write_text("second\n")
    assert elapsed(state) == 0


def test_elapsed_time_is_zero_without_a_boot_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start may be another one."""
    monkeypatch.setattr(saved_state, "BOOT_ID", tmp_path / "missing")
    state = StateFile(tmp_path / "state")
    state.write_locks(60, 7, [], [], 0)
    now = clocks.monotonic()
    monkeypatch.setattr(clocks, "monotonic", lambda: now + 30)
    assert elapsed(state) == 0


def test_server_that_cannot_write_its_state_does_not_start(place: Place) -> None:
    """Otherwise it would fail at its end. Existing files stay."""
    leave(place)
    before = place.state.read_bytes()
    with in_the_way(place), place.start(*LONG) as refused:
        assert refused.refusal() == (
            f"[Errno 21] The state can't be written: Is a directory: '{place.state}'"
        )
    assert place.state.read_bytes() == before


def test_server_without_a_directory_for_its_state_does_not_start(place: Place) -> None:
    """It makes one, but doesn't replace a file."""
    place.state.parent.write_text("")
    with place.start(*LONG) as refused:
        assert str(place.state.parent) in refused.refusal()


def test_stop_that_cannot_save_the_locks_is_a_crash(place: Place) -> None:
    """The line says why."""
    with place.start(*FRESH) as running:
        running.serve()
        with in_the_way(place):
            running.process.terminate()
            assert "The state can't be written: Is a directory" in running.refusal()
    assert "nothing is granted for 1000 seconds" in crash(place, *LONG)


GOOD: dict[str, Any] = {
    "version": 1,
    "at": 1.5,
    "boot": "5678collectPayment",
    "max_ttl": 60,
    "last_token": 7,
    "grace": 0,
    "locks": [],
    "pauses": [],
}
LOCK = ["1234collectPayment", "owner", 7, "a host", 7, 1.5, 7]
PAUSE = ["1234", 7, 1.5, "deploy", "root"]
HOUR = 3_600_000_000
"""Microseconds."""
LATE = time.time_ns() // 1000 + 48 * HOUR


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "JSONDecodeError: Expecting value"),
        (b'{"version": 1', "JSONDecodeError"),
        (b"\xff", "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff"),
        (b'{"version": Infinity}', "ValueError: Infinity is no JSON"),
        (b"[" * 100_000, "RecursionError"),
        (b"[]", "TypeError"),
        (b"{}", "KeyError: 'version'"),
        ({"version": 2}, "version 2 is unknown"),
        ({"version": "1"}, "version '1' is unknown"),
        ({"at": None}, "a value is not a number"),
        ({"max_ttl": "60"}, "a value is not a number"),
        ({"max_ttl": True}, "a value is not a number"),
        ({"grace": None}, "a value is not a number"),
        ({"last_token": 7.5}, "a value is not an integer"),
        ({"last_token": False}, "a value is not an integer"),
        ({"last_token": 10**30}, f"the token {10**30} can't have been granted: it is more than a"),
        ({"last_token": LATE}, "more than a day beyond this machine's clock"),
        ({"locks": [[*LOCK[:2], LATE, *LOCK[3:]]]}, "more than a day beyond"),
        ({"locks": [[*LOCK[:4], LATE, *LOCK[5:]]]}, "more than a day beyond"),
        ({"locks": {}}, "the locks are not a list"),
        ({"locks": ""}, "the locks are not a list"),
        ({"locks": [7]}, "TypeError"),
        ({"locks": [LOCK[:6]]}, "TypeError"),
        ({"locks": [[None, *LOCK[1:]]]}, "a value is not a text"),
        ({"locks": [[*LOCK[:2], "7", *LOCK[3:]]]}, "a value is not an integer"),
        ({"locks": [[*LOCK[:5], "1.5", 0]]}, "a value is not a number"),
        ({"locks": [[*LOCK[:6], None]]}, "a value is not an integer"),
        ({"pauses": None}, "TypeError"),
        ({"pauses": [PAUSE[:4]]}, "TypeError"),
        ({"pauses": [[None, *PAUSE[1:]]]}, "a value is not a text"),
        ({"pauses": [[*PAUSE[:2], "1.5", *PAUSE[3:]]]}, "a value is not a number"),
        (json.dumps(GOOD).replace("60", "1e999").encode(), "a value is not a number"),
        (json.dumps(GOOD).replace("60", "9" * 999).encode(), "OverflowError"),
    ],
)
def test_state_that_no_server_wrote_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes | dict[str, Any], complaint: str
) -> None:
    """In one line with the reason, and without the file's secret content."""
    (tmp_path / "boot_id").write_text("5678collectPayment")
    monkeypatch.setattr(saved_state, "BOOT_ID", tmp_path / "boot_id")
    path = tmp_path / "state"
    path.write_bytes(text if isinstance(text, bytes) else json.dumps(GOOD | text).encode())
    with pytest.raises(Unreadable, match=complaint) as caught:
        StateFile(path).read()
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert "owner" not in str(caught.value)


def test_good_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    """With any text, also lone surrogates, as in a label. At first there is none."""
    state = StateFile(tmp_path / "state")
    assert state.read() is None
    token = time.time_ns() // 1000 + 23 * HOUR
    locks = [LockSnapshot("ü", "owner", token, "a \udcff host", 7, 1.5, 9)]
    pauses = [PauseSnapshot("ü", 7, left, "deploy", "root") for left in (1.5, math.inf)]
    state.write_locks(60, token, locks, pauses, 2.5)
    earlier = state.read()
    assert earlier is not None
    assert (earlier.max_ttl, earlier.last_token, earlier.locks, earlier.grace) == (
        (60, token, locks, 2.5)
    )
    assert earlier.pauses == pauses


@pytest.mark.parametrize("is_directory", [False, True])
def test_server_does_not_start_with_an_unreadable_state(place: Place, is_directory: bool) -> None:
    """It is unknown which leases are valid. The line says what to do; nothing is overwritten."""
    place.state.parent.mkdir()
    if is_directory:
        place.state.mkdir()
    else:
        place.state.write_text("garbage")
    with place.start() as refused:
        complaint = refused.refusal()
    assert complaint.startswith(f"{place.state}: ")
    assert complaint.endswith(
        "repair it, or remove it. Without it, nothing is granted for --max-ttl seconds: give no "
        "less than before."
    )
    assert place.state.is_dir() or place.state.read_text() == "garbage"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., ServerConfig]:
    """Return a function for the server that the command would run."""
    sites: list[ServerConfig] = []
    monkeypatch.setattr(run_lock_server, "run", lambda site, say: sites.append(site))
    write_secret(tmp_path / "secret", b"correct horse battery staple")

    def of_command(**options: str) -> ServerConfig:
        call_command("run_lock_server", secret_file=str(tmp_path / "secret"), **options)
        return sites.pop()

    for name in ("XDG_STATE_HOME", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    return of_command


def test_state_is_by_default_where_systemd_or_the_user_has_such_files(
    site: Callable[..., ServerConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for each address."""
    monkeypatch.setenv("HOME", "/home/locks")
    directory = Path("/home/locks/.local/state/django_distlock")
    assert site(bind="127.0.0.1:7433").state.path == directory / "127.0.0.1%3A7433.json"
    assert site(bind="[::1]:7433").state.path == directory / "%5B%3A%3A1%5D%3A7433.json"
    monkeypatch.setenv("XDG_STATE_HOME", "/states")
    path = Path("/states/django_distlock/localhost%3A1.json")
    assert site(bind="localhost:1").state.path == path
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/locks:/var/lib/more")
    assert site(bind="localhost:1").state.path == Path("/var/lib/locks/localhost%3A1.json")


def test_sockets_of_one_name_have_states_of_their_own(
    site: Callable[..., ServerConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their whole path, from whatever directory it is given."""
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/locks")
    monkeypatch.chdir("/usr")
    path = Path("/var/lib/locks/unix%3A%2Fusr%2Fsocket.json")
    assert site(unix="socket").state.path == path
    assert site(unix="/socket").state.path == Path("/var/lib/locks/unix%3A%2Fsocket.json")


def test_user_without_a_home_must_say_where(
    site: Callable[..., ServerConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service may have none."""

    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)
    with pytest.raises(CommandError, match="Give --state: Could not determine home directory"):
        site(bind="localhost:1")


def test_given_state_is_where_it_says(
    site: Callable[..., ServerConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative to the command's directory."""
    monkeypatch.chdir("/usr")
    assert site(bind="localhost:1", state="s.json").state.path == Path("/usr/s.json")
