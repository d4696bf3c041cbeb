"""The command that runs the lock server, as an operator meets it."""

from __future__ import annotations

import math
import os
import secrets
import socket
import stat
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_distlock.backends.server import ServerBackend
from django_distlock.leases import Extension
from tests.support.lock_server_command import Command, Place
from tests.support.lock_servers import PATH, start_lock_server
from tests.support.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.servers import Server

SECRET = "correct horse battery staple"
NO_STATE = "nothing is granted for"


def said(*arguments: str, **distlock: Any) -> str:
    """Return what the command says in this process, with these settings; CommandError if it won't.

    It mustn't come so far as to serve.
    """
    output = StringIO()
    with override_settings(DISTLOCK=distlock):
        call_command("run_lock_server", *arguments, stdout=output)
    return output.getvalue()


def server_settings(address: str = f"{HOST}:7433", **options: Any) -> dict[str, Any]:
    """Return an entry for DISTLOCK."""
    return {"BACKEND": PATH, "OPTIONS": {"address": address, "secret": SECRET, **options}}


def shell(command: str) -> tuple[str, ...]:
    """Return what runs a command after this one, in the same shell."""
    return "sh", "-c", f'{command}; exec "$@"', "sh"


# Which server


BROKEN = server_settings(secret="short")
OTHER = {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}
AT = ("--bind", f"{HOST}:7433")


@pytest.mark.parametrize(
    ("distlock", "arguments", "complaint"),
    [
        ({}, (), "no ServerBackend that could tell where .* give --bind 127.0.0.1:7433 or --unix,"),
        ({}, AT, "Give --secret-file"),
        ({}, ("--status", *AT), "Give --secret-file"),
        ({"a": OTHER}, (), "no ServerBackend that could tell where"),
        (
            {"a": server_settings(), "b": OTHER, "c": server_settings()},
            (),
            "several ServerBackends: give --backend, one of a, c",
        ),
        ({"a": server_settings(), "b": BROKEN}, AT, "give --backend, one of a, b"),
        ({"a": server_settings()}, ("--backend", "b"), r"DISTLOCK\['b'\]: not configured"),
        ({"a": OTHER}, ("--backend", "a"), r"DISTLOCK\['a'\]: its BACKEND is no ServerBackend"),
        ({"a": {"BACKEND": "..odd"}}, ("--backend", "a"), "its BACKEND is no ServerBackend"),
        (
            {"a": {"BACKEND": "tests.support.workers.main"}},
            ("--backend", "a"),
            "is no ServerBackend",
        ),
        ({"a": BROKEN}, (), r"DISTLOCK\['a'\]: the secret has 5 bytes, but needs 16"),
        ({"a": BROKEN}, ("--backend", "a"), r"DISTLOCK\['a'\]: the secret has 5 bytes"),
    ],
)
def test_server_must_be_told_by_the_options_or_one_entry_of_the_settings(
    distlock: dict[str, Any], arguments: tuple[str, ...], complaint: str
) -> None:
    """What is wrong with an entry that would tell is said, and not that there is none."""
    with pytest.raises(CommandError, match=complaint):
        said(*arguments, **distlock)


def test_settings_that_are_no_dict_are_refused() -> None:
    """By one line, whatever else would be found."""
    with override_settings(DISTLOCK=["a"]), pytest.raises(CommandError, match="must be a dict"):
        call_command("run_lock_server")


def settings_module(directory: Path, distlock: dict[Any, Any]) -> dict[str, Any]:
    """Write a site's settings, and return the variables by which a command has them."""
    (directory / "site_settings.py").write_text(
        f"from tests.support.lock_server_settings import *\nDISTLOCK = {distlock!r}\n"
    )
    return {"DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": str(directory)}


def test_server_is_where_the_only_server_backend_expects_it(place: Place) -> None:
    """With its secret, and without a database; entries that are strange are none of its business.

    The state is in a directory of its own, which is nobody else's.
    """
    distlock = {
        "default": {"BACKEND": "django_distlock.backends.database.DatabaseBackend"},
        "locks": server_settings(place.address),
        "empty": {"BACKEND": ""},
        "relative": {"BACKEND": "..odd"},
        "missing": {"BACKEND": "no.such.Backend"},
        "fails": {"BACKEND": "tests.failing.Backend"},
        "a number": {"BACKEND": 7},
        "no dict": None,
        7: {},
    }
    variables = settings_module(place.directory, distlock)
    variables["XDG_STATE_HOME"] = str(place.directory / "states")
    store = ServerBackend("locks", address=place.address, secret=SECRET)
    with Command(**variables) as running:
        assert NO_STATE in running.serve()
        assert store.status()["locks"] == 0
        with Command("--status", **variables) as asking:
            status, answer, complaints = asking.end()
        assert (status, complaints) == (0, "")
        assert answer.startswith(f"The lock server at {place.address} has been up for ")
    store.close()
    state = place.directory / "states" / "django_distlock"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_alias_chooses_among_several(place: Place, unused_port: int) -> None:
    """Each has another address."""
    other = Place(place.directory, unused_port)
    distlock = {"a": server_settings(place.address), "b": server_settings(other.address)}
    variables = settings_module(place.directory, distlock)
    with Command("--backend", "b", "--state", str(place.state), **variables) as running:
        assert f"Serving locks at {other.address}.\n" in running.serve()
        assert "has been up" in said("--status", "--backend", "b", **distlock)
        with pytest.raises(CommandError, match=f"The lock server at {place.address}: .*refused"):
            said("--status", "--backend", "a", **distlock)


def test_secret_in_a_file_need_be_no_text(place: Place) -> None:
    """Any bytes will do, without the end of the line."""
    place.secret_file.write_bytes(b"\xff\xfe\x00 correct horse \n")
    with place.start() as running:
        running.serve()
        with place.store() as store:
            assert store.status()["locks"] == 0


# What is refused


UNIX = ("--unix", "/tmp/x", "--secret-file", "{directory}/secret")
HERE = ("--bind", f"{HOST}:7433", "--secret-file", "{directory}/secret")
REFUSED = [
    (("--unix", ""), "'' is no path for a unix socket"),
    (("--unix", f"/{'a' * 107}"), "is longer than the 107 bytes of a unix socket"),
    (("--bind", ""), "'' is none of"),
    (("--bind", f"{HOST}:0"), "the port is a number from 1 to 65535"),
    ((*AT, "--secret-file", "{directory}/missing"), "--secret-file: .*No such file.*/missing"),
    ((*AT, "--secret-file", "{directory}"), "--secret-file: .*Is a directory"),
    ((*AT, "--secret-file", "{directory}/short"), "--secret-file: the secret has 5 bytes"),
    ((*HERE, "--tls-key", "k"), "--tls-cert and --tls-key belong together"),
    ((*HERE, "--tls-cert", "c"), "--tls-cert and --tls-key belong together"),
    ((*HERE, "--tls-cert", "c", "--tls-key", "k"), "--tls-cert c, --tls-key k: .*No such file"),
    (
        (*HERE, "--tls-cert", "{directory}/secret", "--tls-key", "{directory}/secret"),
        r"--tls-cert /.*, --tls-key /.*: .*PEM",
    ),
    ((*UNIX, "--tls-cert", "c", "--tls-key", "k"), "A unix socket needs no TLS: leave out"),
    (("--bind", "0.0.0.0:7433", *HERE[2:]), "not on this machine: give --tls-cert and --tls-key"),
    ((*HERE, "--max-ttl", "0"), "max_ttl is 0.0, but must be more than 0, and at most"),
    ((*HERE, "--max-ttl", "-1"), "max_ttl is -1.0, but must be more than 0"),
    ((*HERE, "--max-ttl", "inf"), "max_ttl is inf, but must be more than 0, and at most"),
    ((*HERE, "--idle", "nan"), "idle is nan, but must be more than 0"),
    ((*HERE, "--max-locks", "0"), "max_locks is 0, but must be more than 0"),
    (
        ("--status", "--bind", "192.0.2.1:7433", *HERE[2:]),
        "--status: 192.0.2.1:7433 is not on this machine: give tls, or tls_ca",
    ),
    (("--status", *UNIX, "--tls-ca", "c"), "--status: a unix socket needs no TLS"),
]


@pytest.mark.parametrize(("arguments", "complaint"), REFUSED)
def test_what_can_not_be_is_refused_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    """It says what to do."""
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "short").write_text("short")
    given = [each.format(directory=tmp_path) for each in arguments]
    with pytest.raises(CommandError, match=complaint) as caught:
        said(*given)
    assert "\n" not in str(caught.value)


def test_clients_that_speak_tls_are_not_met_without() -> None:
    """They would take each answer for a fault of the network."""
    with pytest.raises(CommandError, match=r"DISTLOCK\['a'\] speaks TLS: give --tls-cert and"):
        said(a=server_settings(tls=True))


def test_refusal_is_an_exit_status_of_one(place: Place) -> None:
    """And one line on stderr, without a traceback."""
    with place.start("--max-ttl", "0") as refused:
        assert "max_ttl is 0.0" in refused.refusal()


@pytest.mark.parametrize("arguments", [("--max-ttl", "long"), ("--max-locks", "1.5"), UNIX[:2]])
def test_option_that_makes_no_sense_is_an_exit_status_of_two(
    place: Place, arguments: tuple[str, ...]
) -> None:
    """As with any command. A place is a port or a unix socket, not both."""
    with place.start(*arguments) as refused:
        status, _, complained = refused.end()
    assert status == 2
    assert f"error: argument {arguments[0]}: " in complained.splitlines()[-1]


def test_port_in_use_is_refused(place: Place) -> None:
    """The line says which, and whoever supervises it isn't told that it is ready."""
    with (
        told_systemd(place.directory / "notify") as told,
        socket.create_server((HOST, int(place.address.rpartition(":")[2]))),
    ):
        with place.start(NOTIFY_SOCKET=str(place.directory / "notify")) as refused:
            complaint = refused.refusal()
        told.setblocking(False)
        with pytest.raises(BlockingIOError):
            told.recv(64)
    assert complaint.startswith(f"Can't listen at {place.address}: ")
    assert "address already in use" in complaint


# Files, and who may use them


def others_can_connect(path: Path) -> bool:
    """Tell whether a user without rights can connect to a socket."""
    os.seteuid(65534)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    except PermissionError:
        return False
    else:
        return True
    finally:
        os.seteuid(0)


def test_unix_socket_is_for_its_user_alone(unix_place: Place) -> None:
    """Though the mask of the process would let others in. So is the state."""
    with unix_place.start(begin=shell("umask 0")) as running:
        running.serve()
        assert stat.S_IMODE(unix_place.socket.stat().st_mode) == 0o600
        mode = unix_place.state.stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
        assert running.stop()[0] == 0
    assert not unix_place.socket.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_others_can_not_connect_to_the_unix_socket(unix_place: Place) -> None:
    """Unless somebody lets them."""
    unix_place.directory.chmod(0o755)
    with unix_place.start() as running:
        running.serve()
        assert not others_can_connect(unix_place.socket)
        unix_place.socket.chmod(0o666)
        assert others_can_connect(unix_place.socket)


def test_dead_servers_socket_is_replaced(unix_place: Place) -> None:
    """Else nobody could start it again after a crash."""
    with unix_place.start() as running:
        running.serve()
        running.kill()
    assert unix_place.socket.is_socket()
    with unix_place.start() as running:
        running.serve()
        assert unix_place.held() == {}


def test_file_in_the_place_of_the_socket_is_kept(unix_place: Place) -> None:
    """Somebody mistook the path."""
    unix_place.socket.write_text("precious")
    with unix_place.start() as refused:
        assert refused.refusal() == (
            f"Can't listen at {unix_place.address}: [Errno 17] There is something else than the "
            "socket of a dead server"
        )
    assert unix_place.socket.read_text() == "precious"


def test_link_in_the_place_of_the_socket_is_kept(unix_place: Place) -> None:
    """What it links to may come back."""
    unix_place.socket.symlink_to("missing")
    with unix_place.start() as refused:
        assert "Address already in use" in refused.refusal()
    assert unix_place.socket.is_symlink()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_socket_at_which_another_program_listens_is_kept(
    unix_place: Place, kind: socket.SocketKind
) -> None:
    """Its clients go on to reach it."""
    with (
        socket.socket(socket.AF_UNIX, kind) as other,
        socket.socket(socket.AF_UNIX, kind) as client,
    ):
        other.bind(str(unix_place.socket))
        if kind == socket.SOCK_STREAM:
            other.listen()
        with unix_place.start() as refused:
            assert "There is something else" in refused.refusal()
        client.connect(str(unix_place.socket))


@pytest.mark.parametrize(("limit", "complaint"), [("-n", True), ("-Sn", False)])
def test_files_are_allowed_for_all_connections_or_it_does_not_start(
    place: Place, limit: str, complaint: bool
) -> None:
    """The usual limit of 1024 is for a start; at a harder one, it would refuse clients later."""
    with place.start("--max-connections", "100", begin=shell(f"ulimit {limit} 100")) as command:
        if complaint:
            assert "need 250 open files, but the system allows 100" in command.refusal()
        else:
            command.serve()
            allowed, _ = psutil.Process(command.process.pid).rlimit(psutil.RLIMIT_NOFILE)
            assert allowed == 250


# Its status


def status_of(server: Server, *arguments: str) -> list[str]:
    """Return the lines that tell what the server holds."""
    options = server.settings["OPTIONS"]
    place = "--bind", options["address"], "--secret-file", options["secret_file"]
    return said("--status", *place, *arguments).splitlines()


def test_status_tells_what_a_fresh_server_holds(place: Place) -> None:
    """Nothing, up to its limits; and that it grants nothing yet."""
    with place.start("--max-ttl", "1000000", "--max-locks", "30") as running:
        running.serve()
        with Command("--status", *place.at) as asking:
            status, answer, complaints = asking.end()
    assert (status, complaints) == (0, "")
    up, *others, grace = answer.splitlines()
    assert up.startswith(f"The lock server at {place.address} has been up for ")
    assert others == [
        "locks: 0 of 30",
        "waiters: 0, up to 10000 for a lock",
        "connections: 1 of 2000",
        "leases last 1000000 seconds at most",
    ]
    assert grace.startswith("nothing is granted for 9999")
    assert grace.endswith(" seconds more, after a restart")


def test_status_lists_twenty_locks_and_counts_the_others(place: Place) -> None:
    """By name, with who holds each and how long; kept ones and waiters, too."""
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
            assert lines[1:3] == ["locks: 20 of 1000000", "waiters: 1, up to 10000 for a lock"]
            assert lines[5].startswith("00: a host, 59m ")
            assert lines[-1].startswith("19: a host, 49m ")
            assert len(lines) == 5 + 20
            assert store.acquire("20", "nameless", 60, "")
            assert store.release(Extension("00", "owner", 60))
            wire.close()
        lines = said("--status", *place.at).splitlines()
        assert lines[-1].startswith("20: unknown holder, ")
        place.acquire("21", "22")
        assert said("--status", *place.at).endswith("\nand 2 more\n")


def test_status_comes_by_tls_whatever_names_the_server(tmp_path: Path) -> None:
    """By the settings' authority, though address and secret are given; or by a given one."""
    with start_lock_server(tls=True) as server:
        options = server.settings["OPTIONS"]
        authority = options["tls_ca"]
        assert status_of(server, "--tls-ca", authority)[0].endswith("s.")
        distlock = {"a": {"BACKEND": PATH, "OPTIONS": options}}
        at = "--bind", options["address"], "--secret-file", options["secret_file"]
        for arguments in ((), at[:2], at[2:], at):
            assert "has been up for" in said("--status", *arguments, **distlock)
        with pytest.raises(CommandError, match=r"--status: .*No such file"):
            said("--status", *at, "--tls-ca", str(tmp_path / "missing"), **distlock)


def test_settings_that_are_not_needed_may_be_wrong(place: Place) -> None:
    """On the server's host, say, where the site's own files aren't."""
    with place.start() as running:
        running.serve()
        for distlock in ({"a": BROKEN}, {"a": server_settings(), "b": server_settings()}):
            assert "has been up for" in said("--status", *place.at, **distlock)


def test_status_of_a_server_that_is_down_or_not_ours_is_one_line(place: Place) -> None:
    """With an exit status."""
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


# What supervises it


@contextmanager
def told_systemd(address: Path | str) -> Iterator[socket.socket]:
    """Return the socket of somebody who is told when it is ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.settimeout(60)
        told.bind(str(address))
        yield told


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_when_it_can_be_asked_and_when_it_stops(
    place: Place, abstract: bool
) -> None:
    """By a path, or by a name that is in no directory. Ready is also who grants nothing yet."""
    name = f"distlock-{secrets.token_hex()}"
    path = f"\0{name}" if abstract else str(place.directory / "notify")
    variable = f"@{name}" if abstract else path
    with told_systemd(path) as told, place.start(NOTIFY_SOCKET=variable) as running:
        assert told.recv(64) == b"READY=1"
        assert place.held() == {}
        running.process.terminate()
        assert told.recv(64) == b"STOPPING=1"
        assert running.end()[::2] == (0, "")


def test_systemd_that_hears_nothing_does_no_harm(place: Place) -> None:
    """The log on stderr says so."""
    missing = str(place.directory / "missing")
    with place.start(NOTIFY_SOCKET=missing) as running:
        running.serve()
        assert place.held() == {}
        status, _, complained = running.stop()
    assert status == 0
    assert complained.splitlines() == [
        f"NOTIFY_SOCKET can't be told {state}: [Errno 2] No such file or directory"
        for state in ("READY=1", "STOPPING=1")
    ]


def test_help_names_each_limit_with_its_default() -> None:
    """In the units that it takes."""
    with Command("--help") as asking:
        status, text, _ = asking.end()
    assert status == 0
    words = " ".join(text.split())
    assert "--max-ttl SECONDS seconds that a lease lasts at most" in words
    assert "--max-locks NUMBER locks at most (default: 1000000)" in words


def test_limits_may_be_parts_of_a_second(place: Place) -> None:
    """A lease that is longer is refused by the server's terms."""
    with place.start("--max-ttl", "0.5", "--idle", "1.5", "--no-grace") as running:
        running.serve()
        assert place.acquire("a", ttl=0.5)
        with pytest.raises(ValueError, match=r"ttl is from 0\.001 to 0\.5 seconds"):
            place.acquire("b", ttl=math.nextafter(0.5, 1))
