"""The options of the lock server's backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from django_distlock import InvalidLockBackend
from django_distlock.backends.server import ServerBackend
from django_distlock.checks import check_deployment, check_lock_backends
from tests.support.lock_server_command import SECRET
from tests.support.lock_servers import ALIAS, locks_by, locks_of, start_lock_server, write_secret
from tests.support.ports import HOST

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("127.0.0.1:7433", "127.0.0.1:7433"),
        ("[::1]:7433", "[::1]:7433"),
        ("localhost:1", "localhost:1"),
        ("unix:/run/locks", "unix:/run/locks"),
    ],
)
def test_address_has_several_forms(address: str, written: str) -> None:
    """All of these are on this machine, so they need no TLS."""
    backend = ServerBackend(ALIAS, address=address, secret=SECRET)
    assert str(backend.address) == written
    assert str(backend.server) == f"The lock server at {written}"
    assert not backend.tls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either secret, a text, or secret_file"),
        ({"secret": SECRET, "secret_file": "a"}, "give either secret, a text, or secret_file"),
        ({"secret": "short"}, "the secret has 5 bytes, but needs 16"),
        ({"secret": 1234}, "secret is a text"),
        ({"secret_file": "/nowhere"}, "No such file or directory: '/nowhere'"),
        ({"secret_file": "/"}, "Is a directory: '/'"),
        ({"secret": SECRET, "address": 7433}, "an address is a text such as"),
        ({"secret": SECRET, "address": "localhost"}, "'localhost' is not \"host:port\""),
        ({"secret": SECRET, "address": "::1:7433"}, "needs brackets"),
        ({"secret": SECRET, "address": "10.0.0.1:7433"}, "not on this machine: give tls"),
        ({"secret": SECRET, "address": "unix:/a", "tls": True}, "a unix socket needs no TLS"),
        ({"secret": SECRET, "address": "unix:/a", "tls_ca": "/a"}, "a unix socket needs no TLS"),
        ({"secret": SECRET, "tls_ca": "/nowhere"}, "tls_ca, '/nowhere', can't be used"),
        ({"secret": SECRET, "tls_ca": __file__}, "can't be used: .*NO_CERTIFICATE"),
        ({"secret": SECRET, "store_timeout": 0}, "store_timeout"),
        ({"secret": SECRET, "ttl": None}, "ServerBackend has no unlimited ttl"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], message: str) -> None:
    """The message names the setting, and doesn't show the secret."""
    with pytest.raises(InvalidLockBackend, match=rf"^DISTLOCK\['lock_server'\]: .*{message}") as e:
        ServerBackend(ALIAS, **options)
    assert SECRET not in str(e.value)


def test_secret_file_may_end_its_line(tmp_path: Path) -> None:
    """As editors do."""
    file = write_secret(tmp_path / "secret", f"{SECRET}\n".encode())
    assert ServerBackend(ALIAS, secret_file=str(file)).secret == SECRET.encode()


def test_secret_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The message names the setting."""
    file = write_secret(tmp_path / "secret", SECRET.encode())
    file.chmod(0o644)
    message = rf"^DISTLOCK\['lock_server'\]: secret_file: .* chmod 600 {file}\.$"
    with pytest.raises(InvalidLockBackend, match=message):
        ServerBackend(ALIAS, secret_file=str(file))


def test_other_machines_need_tls() -> None:
    """With the system's authorities, unless others are given."""
    assert ServerBackend(ALIAS, address="10.0.0.1:7433", secret=SECRET, tls=True).tls


@pytest.mark.needs("lock_server")
@pytest.mark.parametrize(("ttl", "ids"), [(600, []), (600.5, ["distlock.E004"])])
def test_ttl_above_the_servers_is_reported_by_the_deployment_checks(
    ttl: float, ids: list[str]
) -> None:
    """Only then: a plain check asks no server."""
    with start_lock_server("--max-ttl", "600") as running, locks_of(running, ttl=ttl):
        errors = [*check_deployment()]
        assert [error.id for error in errors] == ids
        if errors:
            assert errors[0].is_serious()
            assert errors[0].msg.startswith(
                f"DISTLOCK['lock_server']: The lock server at {HOST}:{running.port} grants 600 "
                "seconds at most, but ttl is 600.5:"
            )
            assert str(errors[0].hint).endswith("with --max-ttl 600.5.")
        assert [*check_lock_backends()] == []


def test_server_that_is_not_there_is_an_error_of_the_deployment_check(unused_port: int) -> None:
    """A plain check doesn't ask: the server need not run yet where a site is checked."""
    address = f"{HOST}:{unused_port}"
    with locks_by({"address": address, "secret": SECRET, "ttl": 1e6, "store_timeout": 0.5}):
        (message,) = check_deployment()
        assert message.id == "distlock.E009"
        assert [*check_lock_backends()] == []
