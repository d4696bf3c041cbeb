"""The command's server: its address, its files and their permissions."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from django.core.management import CommandError

from django_distlock.backends.server import ServerBackend
from tests.support.lock_server_command import SECRET, Command, Place, said, server_settings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once


def shell(command: str) -> tuple[str, ...]:
    """Return a program that runs this line in a shell before the command."""
    return "sh", "-c", f'{command}; exec "$@"', "sh"


# By the settings


def settings_module(directory: Path, distlock: dict[Any, Any]) -> dict[str, Any]:
    """Write a site's settings, and return the environment in which a command uses them."""
    (directory / "site_settings.py").write_text(
        f"from tests.support.lock_server_settings import *\nDISTLOCK = {distlock!r}\n"
    )
    return {"DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": str(directory)}


def test_server_is_where_the_only_server_backend_expects_it(place: Place) -> None:
    """With its secret, and without a database; malformed entries of other stores are ignored.

    The state is in its own directory, which others can't read.
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
    }
    variables = settings_module(place.directory, distlock)
    variables["XDG_STATE_HOME"] = str(place.directory / "states")
    store = ServerBackend("locks", address=place.address, secret=SECRET)
    with Command(**variables) as running:
        assert "nothing is granted for" in running.serve()
        assert store.status()["locks"] == 0
        with Command("--status", **variables) as asking:
            status, answer, complaints = asking.end()
        assert (status, complaints) == (0, "")
        assert answer.startswith(f"The lock server at {place.address} has been up for ")
    store.close()
    state = place.directory / "states" / "django_distlock"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_alias_chooses_among_several(place: Place, unused_port: int) -> None:
    """Each has its own address."""
    other = Place(place.directory, unused_port)
    distlock = {"a": server_settings(place.address), "b": server_settings(other.address)}
    variables = settings_module(place.directory, distlock)
    with Command("--backend", "b", "--state", str(place.state), **variables) as running:
        assert f"Serving locks at {other.address}.\n" in running.serve()
        assert "has been up" in said("--status", "--backend", "b", **distlock)
        with pytest.raises(CommandError, match=f"The lock server at {place.address}: .*refused"):
            said("--status", "--backend", "a", **distlock)


def test_secret_in_a_file_may_be_any_bytes(place: Place) -> None:
    """The end of the line doesn't count."""
    place.secret_file.write_bytes(b"\xff\xfe\x00 correct horse \n")
    with place.start() as running:
        running.serve()
        with place.store() as store:
            assert store.status()["locks"] == 0


# Files, and their permissions


def others_can_connect(path: Path) -> bool:
    """Return whether a user without rights can connect to a socket."""
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
    """Even if the process's umask would let others in. So is the state file."""
    with unix_place.start(begin=shell("umask 0")) as running:
        running.serve()
        assert stat.S_IMODE(unix_place.socket.stat().st_mode) == 0o600
        mode = unix_place.state.stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
        assert running.stop()[0] == 0
    assert not unix_place.socket.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_other_users_cannot_connect_to_the_unix_socket(unix_place: Place) -> None:
    """Unless its permissions are changed."""
    unix_place.directory.chmod(0o755)
    with unix_place.start() as running:
        running.serve()
        assert not others_can_connect(unix_place.socket)
        unix_place.socket.chmod(0o666)
        assert others_can_connect(unix_place.socket)


def test_dead_servers_socket_is_replaced(unix_place: Place) -> None:
    """Otherwise it couldn't be started again after a crash."""
    with unix_place.start() as running:
        running.serve()
        running.kill()
    assert unix_place.socket.is_socket()
    with unix_place.start() as running:
        running.serve()
        assert unix_place.held() == {}


def test_file_in_the_place_of_the_socket_is_kept(unix_place: Place) -> None:
    """The path may be a mistake."""
    unix_place.socket.write_text("precious")
    with unix_place.start() as refused:
        assert refused.refusal() == (
            f"Can't listen at {unix_place.address}: [Errno 17] It exists, and is not the socket "
            "of a dead server"
        )
    assert unix_place.socket.read_text() == "precious"


def test_link_in_the_place_of_the_socket_is_kept(unix_place: Place) -> None:
    """The file that it links to may come back."""
    unix_place.socket.symlink_to("missing")
    with unix_place.start() as refused:
        assert "Address already in use" in refused.refusal()
    assert unix_place.socket.is_symlink()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_socket_at_which_another_program_listens_is_kept(
    unix_place: Place, kind: socket.SocketKind
) -> None:
    """Its clients still reach it."""
    with (
        socket.socket(socket.AF_UNIX, kind) as other,
        socket.socket(socket.AF_UNIX, kind) as client,
    ):
        other.bind(str(unix_place.socket))
        if kind == socket.SOCK_STREAM:
            other.listen()
        with unix_place.start() as refused:
            assert "It exists, and is not the socket" in refused.refusal()
        client.connect(str(unix_place.socket))


@pytest.mark.parametrize(("limit", "complaint"), [("-n", True), ("-Sn", False)])
def test_files_are_allowed_for_all_connections_or_it_does_not_start(
    place: Place, limit: str, complaint: bool
) -> None:
    """It raises the usual soft limit of 1024; with a lower hard limit it refuses to start."""
    with place.start("--max-connections", "100", begin=shell(f"ulimit {limit} 100")) as command:
        if complaint:
            assert "need 250 open files, but the system allows 100" in command.refusal()
        else:
            command.serve()
            allowed, _ = psutil.Process(command.process.pid).rlimit(psutil.RLIMIT_NOFILE)
            assert allowed == 250
