"""The secret and TLS: which lock servers the backend trusts."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from django_distlock import LockBackendUnavailable, acquire_lock, clocks
from django_distlock.backends.server import ServerBackend
from tests.support.lock_server_command import SECRET
from tests.support.lock_servers import ALIAS, host_and_port, locks_of, options_of
from tests.support.ports import HOST

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import Server


def why_not(server: Server, **options: Any) -> str:
    """Return the error of an acquisition with these options."""
    with locks_of(server, **options), pytest.raises(LockBackendUnavailable) as error:
        acquire_lock("1234collectPayment", backend=ALIAS)
    return str(error.value)


@pytest.mark.needs("lock_server")
def test_wrong_secret_gets_no_lock(lock_server: Server) -> None:
    """The error says so."""
    assert "The secret is not the server's" in why_not(lock_server, secret=SECRET, secret_file=None)


@pytest.mark.needs("lock_server_tls")
def test_wrong_secret_over_tls_gets_no_lock(tls_lock_server: Server) -> None:
    """It leaves no open socket."""
    assert "The secret is not the server's" in why_not(
        tls_lock_server, secret=SECRET, secret_file=None
    )


@pytest.mark.needs("lock_server_tls")
def test_server_of_another_authority_is_not_trusted(
    tls_lock_server: Server, tmp_path: Path
) -> None:
    """It is sent nothing."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    assert "certificate verify failed" in why_not(tls_lock_server, tls_ca=str(other))


@pytest.mark.needs("lock_server_tls")
def test_server_by_another_name_is_not_trusted(tls_lock_server: Server) -> None:
    """Its certificate has another name."""
    address = f"localhost:{host_and_port(tls_lock_server)[1]}"
    assert "certificate is not valid for 'localhost'" in why_not(tls_lock_server, address=address)


@pytest.mark.needs("lock_server_tls")
def test_server_that_is_spoken_to_without_tls_is_unavailable(tls_lock_server: Server) -> None:
    """Server and client wait for each other, for a moment."""
    address = options_of(tls_lock_server)["address"]
    with locks_of(tls_lock_server, address=address, tls_ca=None, store_timeout=0.2):
        with pytest.raises(LockBackendUnavailable, match=r"timed out|no answer"):
            acquire_lock("1234collectPayment", backend=ALIAS)


@pytest.mark.needs("lock_server")
@pytest.mark.needs("lock_server_tls")
def test_server_without_tls_is_unavailable_by_tls(
    lock_server: Server, tls_lock_server: Server
) -> None:
    """The error says so in plain words."""
    assert "SSL" in why_not(lock_server, tls_ca=options_of(tls_lock_server)["tls_ca"])


def test_handshake_has_no_time_left_after_a_slow_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection has taken all of the time."""
    now = clocks.monotonic()
    with socket.create_server((HOST, 0)) as listening_socket:

        def later_when_connected() -> float:
            return now + 10 * len(select.select([listening_socket], [], [], 0)[0])

        address = f"{HOST}:{listening_socket.getsockname()[1]}"
        store = ServerBackend(ALIAS, address=address, secret=SECRET, tls=True)
        # Undone before the socket is closed: threads of other tests' stores read the clock, too.
        with monkeypatch.context() as patch, pytest.raises(TimeoutError):
            patch.setattr(clocks, "monotonic", later_when_connected)
            store.server.connect(2)


def test_unix_socket_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    """Like a server that is down."""
    backend = ServerBackend(ALIAS, address=f"unix:{tmp_path}/none", secret=SECRET)
    with pytest.raises(LockBackendUnavailable, match="No such file or directory"):
        backend.acquire("1234collectPayment", "owner", 60, "")
