"""The command that runs the lock server: its arguments, and how it refuses them in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_distlock.server.addresses import Address
from django_distlock.server.limits import Limits
from django_distlock.server.locks import LockSnapshot, Session, Waiter
from django_distlock.server.running import ServerConfig
from django_distlock.server.saved_state import SavedState, StateFile
from tests.support.lock_server_command import SECRET, Command, Place, said, server_settings
from tests.support.lock_servers import write_secret
from tests.support.ports import HOST

# Which server


BROKEN = server_settings(secret="short")
OTHER = {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}
AT = ("--bind", f"{HOST}:7433")


@pytest.mark.parametrize(
    ("distlock", "arguments", "complaint"),
    [
        ({}, (), "no ServerBackend with an address .* give --bind 127.0.0.1:7433 or --unix,"),
        ({}, AT, "Give --secret-file"),
        ({}, ("--status", *AT), "Give --secret-file"),
        ({"a": OTHER}, (), "no ServerBackend with an address and a secret"),
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
def test_address_and_secret_come_from_options_or_one_entry_of_the_settings(
    distlock: dict[str, Any], arguments: tuple[str, ...], complaint: str
) -> None:
    """The error names the fault of a wrong entry, rather than saying that there is none."""
    with pytest.raises(CommandError, match=complaint):
        said(*arguments, **distlock)


def test_settings_other_than_a_dict_are_refused() -> None:
    """In one line, before anything else is checked."""
    with override_settings(DISTLOCK=["a"]), pytest.raises(CommandError, match="must be a dict"):
        call_command("run_lock_server")


def test_repr_shows_no_secret() -> None:
    """Locks and waiters don't show their owners, either."""
    site = ServerConfig(
        address=Address("localhost", 7433),
        secret=SECRET.encode(),
        limits=Limits(),
        state=StateFile(Path("state")),
    )
    assert SECRET not in repr(site)
    assert "7433" in repr(site)
    described = LockSnapshot("1234collectPayment", SECRET, 7, "a host", 1, 60.0)
    earlier = SavedState(300, 7, [described], 0, [], 0)
    waiter = Waiter(SECRET, "a host", lambda: None, Session(), 1)
    assert SECRET not in repr([described, earlier, waiter])
    assert "1234collectPayment" in repr(earlier)


# What is refused


UNIX = ("--unix", "/tmp/x", "--secret-file", "{directory}/secret")
HERE = ("--bind", f"{HOST}:7433", "--secret-file", "{directory}/secret")
REFUSED = [
    (("--unix", ""), "'' can't be the path of a unix socket"),
    (("--unix", f"/{'a' * 107}"), "is longer than the 107 bytes of a unix socket"),
    (("--bind", ""), "'' is not \"host:port\""),
    (("--bind", f"{HOST}:0"), "the port is a number from 1 to 65535"),
    ((*AT, "--secret-file", "{directory}/missing"), "--secret-file: .*No such file.*/missing"),
    ((*AT, "--secret-file", "{directory}"), "--secret-file: .*Is a directory"),
    ((*AT, "--secret-file", "{directory}/open"), "--secret-file: .*0644, .*chmod 600 /.*/open$"),
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
def test_invalid_options_are_refused_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    """The line says what to do."""
    write_secret(tmp_path / "secret", SECRET.encode())
    write_secret(tmp_path / "short", b"short")
    write_secret(tmp_path / "open", SECRET.encode()).chmod(0o644)
    given = [each.format(directory=tmp_path) for each in arguments]
    with pytest.raises(CommandError, match=complaint) as caught:
        said(*given)
    assert "\n" not in str(caught.value)


def test_server_without_tls_is_refused_if_clients_use_tls() -> None:
    """They would see each answer as a network error."""
    with pytest.raises(CommandError, match=r"DISTLOCK\['a'\] uses TLS: give --tls-cert and"):
        said(a=server_settings(tls=True))


def test_refusal_is_an_exit_status_of_one(place: Place) -> None:
    """With one line on stderr, and no traceback."""
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


def test_help_names_each_limit_with_its_default() -> None:
    """In the units that the option takes."""
    with Command("--help") as asking:
        status, text, _ = asking.end()
    assert status == 0
    words = " ".join(text.split())
    assert "--max-ttl SECONDS the longest lease, in seconds" in words
    assert "--max-locks NUMBER the most locks (default: 1000000)" in words
