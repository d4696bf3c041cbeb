"""What one lock server leaves to the next: its locks, or how long others may still be in force."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command

from django_distlock import LockBackendUnavailable, clocks
from django_distlock.management.commands import run_lock_server
from django_distlock.records import LeaseClaim
from django_distlock.server import saved_state
from django_distlock.server.locks import LockSnapshot
from django_distlock.server.path_lock import InUse, PathLock
from django_distlock.server.saved_state import StateFile, Unreadable
from tests.support.concurrency import until
from tests.support.lock_server_command import Place
from tests.support.lock_servers import MOVED_CLOCK, move_clock, write_secret
from tests.support.processes import strike

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_distlock.server.running import ServerConfig
    from tests.support.lock_server_command import Command

pytestmark = pytest.mark.once
LONG = ("--max-ttl", "1000")
FRESH = (*LONG, "--no-grace")
NOTHING_YET = "nothing is granted for"


def content(place: Place) -> Any:
    """Return what is in the state file."""
    return json.loads(place.state.read_bytes())


def change(place: Place, **changes: Any) -> None:
    """Let something else be in it."""
    place.state.write_text(json.dumps(content(place) | changes))


def leave(
    place: Place, *arguments: str, semaphores: tuple[str, ...] = ("1234collectPayment",)
) -> list[int]:
    """Let a server grant these and be stopped; return the tokens."""
    with place.start(*FRESH, *arguments) as running:
        running.serve()
        tokens = place.acquire(*semaphores)
        assert running.stop()[0] == 0
    return tokens


def crash(place: Place, *arguments: str) -> str:
    """Let a server be killed; return what it said before."""
    with place.start(*arguments) as running:
        said = running.serve()
        running.kill()
    return said


# An orderly stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_orderly_stop_saves_the_locks_for_the_next_server(
    place: Place, number: signal.Signals
) -> None:
    """It has them at once, with their owners, and its tokens are greater.

    What a write that was interrupted left behind, and others might read, is not in the way.
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
    """Who waits comes again; until then nobody has the lock."""
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
    """What ended meanwhile is free, and the rest lasts no longer than it would have."""
    leave(place, semaphores=("1234collectPayment",))
    found = content(place)
    [lock] = found["locks"]
    change(
        place,
        at=found["at"] - 600,
        locks=[lock, ["5678collectPayment", "owner", lock[2], "a host", lock[4], 500.0]],
    )
    with place.start(*LONG) as running:
        running.serve()
        assert list(place.held()) == ["1234collectPayment"]
        assert 300 < place.held()["1234collectPayment"] < 400


def elapsed(state: StateFile) -> float:
    """Return how long ago it was written, as far as is known."""
    earlier = state.read()
    assert earlier is not None
    return earlier.elapsed


def test_elapsed_time_is_known_within_one_boot_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After another one the clock began anew: then a lease lasts too long rather than too short."""
    boot = tmp_path / "boot_id"
    boot.write_text("first\n")
    monkeypatch.setattr(saved_state, "BOOT_ID", boot)
    state = StateFile(tmp_path / "state")
    state.write_locks(60, 7, [], 0)
    now = clocks.monotonic()
    monkeypatch.setattr(clocks, "monotonic", lambda: now + 30)
    assert 30 <= elapsed(state) < 60
    monkeypatch.setattr(clocks, "monotonic", lambda: now - 30)
    assert elapsed(state) == 0
    monkeypatch.setattr(clocks, "monotonic", lambda: now + 30)
    boot.write_text("second\n")
    assert elapsed(state) == 0


def test_where_boots_are_not_told_apart_no_time_has_elapsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start may be another one."""
    monkeypatch.setattr(saved_state, "BOOT_ID", tmp_path / "missing")
    state = StateFile(tmp_path / "state")
    state.write_locks(60, 7, [], 0)
    now = clocks.monotonic()
    monkeypatch.setattr(clocks, "monotonic", lambda: now + 30)
    assert elapsed(state) == 0


# A stop during the start


def test_stop_while_the_state_is_read_loses_nothing(place: Place) -> None:
    """However long that takes: as from a pipe whose other end has yet to write."""
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
    """Before anything is served, if it comes in time."""
    leave(place)
    with place.start(*LONG) as running:
        until(lambda: content(place)["locks"] is None)
        assert running.stop()[0] == 0
    assert [semaphore for semaphore, *_ in content(place)["locks"]] == ["1234collectPayment"]


def test_start_that_fails_loses_nothing(place: Place, unused_port: int) -> None:
    """Neither the table nor what is left of the grace."""
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


# A crash


def test_first_server_grants_nothing_and_says_how_to_change_that(place: Place) -> None:
    """An earlier one's state may have been lost, and its leases be in force."""
    with place.start(*LONG) as running:
        said = running.serve()
        assert f"There is no table in {place.state}: nothing is granted for 1000 seconds" in said
        assert "--no-grace grants at once" in said
        with pytest.raises(LockBackendUnavailable, match="Nothing is granted"):
            place.acquire("1234collectPayment")


def test_after_a_crash_nothing_is_granted_for_the_longer_of_both_limits(place: Place) -> None:
    """Not even after a second one: leases of the first server are in force still."""
    crash(place, *FRESH)
    assert content(place)["locks"] is None
    for _ in range(2):
        said = crash(place, "--max-ttl", "5")
        assert f"saved no table in {place.state}: nothing is granted for 1000 seconds" in said
        assert content(place)["max_ttl"] == 1000
    assert "nothing is granted for 2000 s" in crash(place, "--max-ttl", "2000")


def test_holder_reclaims_its_lock_after_a_crash(place: Place) -> None:
    """When it renews, and nobody else gets anything meanwhile."""
    with place.start(*FRESH) as running:
        running.serve()
        [token] = place.acquire("1234collectPayment")
        running.kill()
    with place.start(*LONG) as running:
        running.serve()
        with place.store() as store:
            claim = LeaseClaim("1234collectPayment", "owner", 1000, token, "a host")
            assert store.renew([claim])["owner"].renewed
        assert list(place.held()) == ["1234collectPayment"]
        with pytest.raises(LockBackendUnavailable):
            place.acquire("5678collectPayment")


def test_no_grace_grants_at_once_after_a_crash(place: Place) -> None:
    """If the operator knows that nobody holds anything."""
    crash(place, *FRESH)
    with place.start(*FRESH) as running:
        assert NOTHING_YET not in running.serve()
        assert place.acquire("1234collectPayment")


def start_moved(place: Place, *arguments: str) -> Command:
    """Start a server whose clocks the test moves."""
    moved = str(place.directory / "moved")
    return place.start(*arguments, DJANGO_SETTINGS_MODULE=MOVED_CLOCK, DISTLOCK_TEST_MOVED=moved)


def test_shorter_limit_counts_when_all_longer_leases_have_ended(place: Place) -> None:
    """From then on a crash costs less time again."""
    crash(place, *FRESH)
    with start_moved(place, "--max-ttl", "500") as running:
        running.serve()
        assert not place.held()  # when it answers, it waits for the longer leases to end
        assert content(place)["max_ttl"] == 1000
        move_clock(place.directory, 1000)
        assert place.acquire("1234collectPayment", ttl=500)
        until(lambda: content(place)["max_ttl"] == 500)
        assert content(place)["locks"] is None
        assert running.stop()[0] == 0
    assert content(place)["max_ttl"] == 500


def test_shorter_limit_counts_from_the_next_start_if_it_can_not_be_written(place: Place) -> None:
    """A server whose disk is full goes on, and says so."""
    crash(place, *FRESH)
    with start_moved(place, "--max-ttl", "500") as running:
        running.serve()
        assert not place.held()
        with in_the_way(place):
            move_clock(place.directory, 1000)
            assert place.acquire("1234collectPayment", ttl=500)
            assert running.process.stderr is not None
            assert running.process.stderr.readline() == (
                f"[Errno 21] The state can't be written: Is a directory: '{place.state}'. Nothing "
                "would be granted for longer than need be.\n"
            )
        assert running.stop()[0] == 0
    assert content(place)["max_ttl"] == 500


def test_longer_leases_are_not_forgotten_by_an_orderly_stop(place: Place) -> None:
    """A server with a shorter limit had them in its table, and the next one crashes."""
    leave(place)
    with place.start("--max-ttl", "5") as running:
        running.serve()
        assert running.stop()[0] == 0
    crash(place, "--max-ttl", "5")
    assert "nothing is granted for 1000 seconds" in crash(place, "--max-ttl", "5")


def test_orderly_stop_does_not_end_the_grace(place: Place) -> None:
    """What was not reclaimed before it may be in force after it, for the rest of the time."""
    with place.start(*LONG) as running:
        running.serve()
        assert running.stop()[0] == 0
    change(place, at=content(place)["at"] - 400)
    with place.start(*LONG) as running:
        said = running.serve()
        assert "had only begun to learn which locks are held, and saved those in" in said
        with pytest.raises(LockBackendUnavailable, match="Nothing is granted"):
            place.acquire("1234collectPayment")
        assert running.stop()[0] == 0
    assert 500 < content(place)["grace"] < 600
    change(place, at=content(place)["at"] - 600)
    with place.start(*LONG) as running:
        assert NOTHING_YET not in running.serve()
        assert place.acquire("1234collectPayment")


# What can't be written or read


class in_the_way:  # noqa: N801 - a block
    """Let nothing be written in the block, whoever tries."""

    def __init__(self, place: Place) -> None:
        self._directory = place.state.with_name(f"{place.state.name}.new")

    def __enter__(self) -> None:
        self._directory.mkdir()

    def __exit__(self, *exception: object) -> None:
        self._directory.rmdir()


def test_server_that_can_not_write_its_state_does_not_start(place: Place) -> None:
    """Or else it would find out at its end; what is there stays."""
    leave(place)
    before = place.state.read_bytes()
    with in_the_way(place), place.start(*LONG) as refused:
        assert refused.refusal() == (
            f"[Errno 21] The state can't be written: Is a directory: '{place.state}'"
        )
    assert place.state.read_bytes() == before


def test_server_without_a_directory_for_its_state_does_not_start(place: Place) -> None:
    """It makes one, but not in the place of a file."""
    place.state.parent.write_text("")
    with place.start(*LONG) as refused:
        assert str(place.state.parent) in refused.refusal()


def test_stop_that_can_not_save_the_locks_is_a_crash(place: Place) -> None:
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
}
LOCK = ["1234collectPayment", "owner", 7, "a host", 7, 1.5]
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
        ({"at": None}, "something else than a number"),
        ({"max_ttl": "60"}, "something else than a number"),
        ({"max_ttl": True}, "something else than a number"),
        ({"grace": None}, "something else than a number"),
        ({"last_token": 7.5}, "something else than an integer"),
        ({"last_token": False}, "something else than an integer"),
        ({"last_token": 10**30}, f"the token {10**30} can't have been granted: it is more than a"),
        ({"last_token": LATE}, "more than a day beyond this machine's clock"),
        ({"locks": [[*LOCK[:2], LATE, *LOCK[3:]]]}, "more than a day beyond"),
        ({"locks": [[*LOCK[:4], LATE, *LOCK[5:]]]}, "more than a day beyond"),
        ({"locks": {}}, "the locks are no list"),
        ({"locks": ""}, "the locks are no list"),
        ({"locks": [7]}, "TypeError"),
        ({"locks": [LOCK[:5]]}, "TypeError"),
        ({"locks": [[None, *LOCK[1:]]]}, "something else than a text"),
        ({"locks": [[*LOCK[:2], "7", *LOCK[3:]]]}, "something else than an integer"),
        ({"locks": [[*LOCK[:5], "1.5"]]}, "something else than a number"),
        (json.dumps(GOOD).replace("60", "1e999").encode(), "something else than a number"),
        (json.dumps(GOOD).replace("60", "9" * 999).encode(), "OverflowError"),
    ],
)
def test_state_that_no_server_wrote_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes | dict[str, Any], complaint: str
) -> None:
    """By one line that says why, and has nothing of what is in it: that is secret."""
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
    """Any text, also what is no Unicode, in a label say; and there is none at first."""
    state = StateFile(tmp_path / "state")
    assert state.read() is None
    token = time.time_ns() // 1000 + 23 * HOUR
    locks = [LockSnapshot("ü", "owner", token, "a \udcff host", 7, 1.5)]
    state.write_locks(60, token, locks, 2.5)
    earlier = state.read()
    assert earlier is not None
    assert (earlier.max_ttl, earlier.last_token, earlier.locks, earlier.grace) == (
        (60, token, locks, 2.5)
    )


@pytest.mark.parametrize("is_directory", [False, True])
def test_server_does_not_start_by_a_state_that_it_can_not_read(
    place: Place, is_directory: bool
) -> None:
    """Nobody knows which leases are in force. The line says what to do; nothing is overwritten."""
    place.state.parent.mkdir()
    if is_directory:
        place.state.mkdir()
    else:
        place.state.write_text("garbage")
    with place.start() as refused:
        complaint = refused.refusal()
    assert complaint.startswith(f"{place.state}: ")
    assert complaint.endswith(
        "mend it, or remove it. Then nothing is granted for --max-ttl seconds: give no less than "
        "before."
    )
    assert place.state.is_dir() or place.state.read_text() == "garbage"


# One server at a time


def test_second_server_with_one_state_is_refused_at_once(place: Place, unused_port: int) -> None:
    """It would overwrite what the first one saves; the first one is not disturbed."""
    other = Place(place.directory, unused_port)
    other.state = place.state
    with place.start(*FRESH) as running:
        running.serve()
        with other.start(*FRESH) as refused:
            assert refused.refusal() == (
                f"Another lock server, which runs, has {place.state}: stop it, or give another "
                "path."
            )
        assert place.acquire("1234collectPayment")
        running.kill()
    with other.start(*LONG) as running:
        running.serve()


def test_second_server_at_one_socket_is_refused_at_once(
    unix_place: Place, unused_port: int
) -> None:
    """Whatever its state."""
    other = Place(unix_place.directory, unused_port, unix=True)
    other.state = unix_place.directory / "another state"
    with unix_place.start(*FRESH) as running:
        running.serve()
        with other.start(*FRESH) as refused:
            assert f"has {unix_place.socket}: stop it" in refused.refusal()
        assert unix_place.acquire("1234collectPayment")


def test_successor_can_not_start_before_a_slow_stop_is_over(unix_place: Place) -> None:
    """So nobody removes its socket, nor overwrites its state."""
    with unix_place.start(*FRESH) as running:
        running.serve()
        with unix_place.store() as store:
            wire = store.server.connect(60)  # it has a second to be closed, too
            pause_in_stop(running, unix_place)
            with unix_place.start(*LONG) as refused:
                assert "Another lock server, which runs" in refused.refusal()
            running.process.send_signal(signal.SIGCONT)
            assert running.end()[::2] == (0, "")
            wire.close()
    with unix_place.start(*LONG) as running:
        assert NOTHING_YET not in running.serve()
        assert unix_place.acquire("1234collectPayment")
        assert unix_place.socket.is_socket()


def pause_in_stop(running: Command, place: Place) -> None:
    """Let a server stop so far that it has no socket any more, and no farther for now."""
    running.process.terminate()
    until(lambda: not place.socket.exists())
    strike(running.process, signal.SIGSTOP)
    assert running.process.poll() is None


def test_claim_ends_with_its_process_or_before(tmp_path: Path) -> None:
    """It is a lock of the system's on a file beside it, which stays."""
    first = PathLock(tmp_path / "state")
    with pytest.raises(InUse):
        PathLock(tmp_path / "state")
    first.close()
    PathLock(tmp_path / "state").close()
    assert stat.S_IMODE((tmp_path / "state.lock").stat().st_mode) == 0o600


# Where it is by default


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., ServerConfig]:
    """Return what tells what server the command would run."""
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
    """By their whole path, from wherever it is given."""
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
    """From where the command was called."""
    monkeypatch.chdir("/usr")
    assert site(bind="localhost:1", state="s.json").state.path == Path("/usr/s.json")
