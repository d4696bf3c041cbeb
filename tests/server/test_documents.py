"""The how-tos of the lock server work: each block is run here, or listed with a reason."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from configparser import ConfigParser
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from django.core.management import call_command, load_command_class
from django.test import override_settings

from django_distlock import LockBackendUnavailable, acquire_lock, lock_backends
from django_distlock.backends.server import ServerBackend
from django_distlock.records import ServerStatus
from django_distlock.server.secret import read_secret
from tests.documentation.elsewhere import NOT_RUN
from tests.support.children import tied
from tests.support.documentation import DOCUMENTS, blocks, console_commands, example, section
from tests.support.lock_server_command import BACKEND, Command, Place, said
from tests.support.lock_servers import write_secret
from tests.support.paths import ROOT
from tests.support.ports import HOST
from tests.support.processes import worker_environment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

RUN, SECURE = "how-to/run-the-lock-server.md", "how-to/secure-the-lock-server.md"
SEMAPHORE = "1234collectPayment"
TIMEOUT = 60
HERE = {
    "python manage.py run_lock_server --no-grace",
    "python manage.py run_lock_server --status",
    (
        "python -m django run_lock_server --settings lock_settings --pythonpath . "
        "--bind 127.0.0.1:7433 --secret-file /etc/shop/lock-secret"
    ),
    (
        "python manage.py run_lock_server --bind locks.internal:7433 --tls-cert locks.pem "
        "--tls-key locks.key"
    ),
    'python manage.py pause_locks --all --reason "new secret"',
    "python manage.py list_locks --state held",
    "python manage.py resume_locks --all",
    "systemd-analyze verify /etc/systemd/system/shop-locks.service",
}
"""Commands that a test below runs, at other addresses and with other files."""


@pytest.mark.parametrize("page", [RUN, SECURE])
def test_each_command_is_run_or_has_a_reason(page: str) -> None:
    """One that is neither might not work."""
    text = (DOCUMENTS / page).read_text("utf-8")
    known = {*HERE, MAKE_SECRET, *openssl(), *NOT_RUN}
    assert [each for each in console_commands(text) if not {each, each.split()[0]} & known] == []


def openssl() -> list[str]:
    """Return the command that makes a certificate."""
    secured = section(SECURE, "Reach it from other machines by TLS")
    return [each for each in console_commands(secured) if each.startswith("openssl ")]


MAKE_SECRET = console_commands(section(RUN, "1. Make a secret"))[-1]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Return a file with the secret that the page's command makes."""
    program = shlex.split(MAKE_SECRET)[2]
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return write_secret(tmp_path / "secret", made.stdout)


def settings_of(page: str, heading: str, **options: Any) -> dict[str, Any]:
    """Return the documented DISTLOCK with other values of the same OPTIONS."""
    shown: dict[str, Any] = example(page, heading).DISTLOCK
    assert shown["default"]["OPTIONS"].keys() == options.keys()
    shown["default"]["OPTIONS"] = {**options, "store_timeout": TIMEOUT}
    return shown


def test_server_that_is_tried_by_hand(place: Place, secret: Path) -> None:
    """It serves at the address in DISTLOCK, and its status is the documented one."""
    place.secret_file.write_bytes(secret.read_bytes())
    options = {"address": place.address, "secret_file": str(place.secret_file)}
    distlock = settings_of(RUN, "2. Point your site at the server", **options)
    _, shown = blocks(section(RUN, "3. Try it by hand"), "console")
    with place.start("--no-grace") as running:
        assert running.serve() == f"Serving locks at {place.address}.\n"
        status = said("--status", **distlock).splitlines()
        with override_settings(DISTLOCK=distlock):
            lease = acquire_lock(SEMAPHORE)
            assert lease is not None
            lease.release()
            store = lock_backends["default"]
            assert isinstance(store, ServerBackend)
            assert store.status().keys() == ServerStatus.__annotations__.keys()
            store.close()
        code, output, _ = running.stop()
    assert (code, output) == (0, f"Stopped. Locks saved in {place.state}: 0.\n")
    assert status[1:] == shown.splitlines()[2:]
    assert re.match(r"The lock server at \S+ has been up for ", status[0])


def test_server_without_the_site(tmp_path: Path, secret: Path, unused_port: int) -> None:
    """By one file of settings; the state file's directory is made."""
    heading = "Run it without your site"
    [settings] = blocks(section(RUN, heading), "python")
    (tmp_path / "lock_settings.py").write_text(settings)
    [shown] = console_commands(section(RUN, heading))
    command = shown.replace("127.0.0.1:7433", f"{HOST}:{unused_port}")
    command = command.replace("/etc/shop/lock-secret", str(secret))
    server = subprocess.Popen(
        tied([sys.executable, *shlex.split(command)[1:]]),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path / "state")},
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdout is not None
        assert "There is no table in " in server.stdout.readline()
        assert server.stdout.readline() == f"Serving locks at {HOST}:{unused_port}.\n"
        server.terminate()
        output, _ = server.communicate(timeout=TIMEOUT)
    assert (server.returncode, output.count("Locks saved in ")) == (0, 1)
    [state] = (tmp_path / "state" / "django_distlock").glob("*.json")
    assert str(unused_port) in state.name


def unit() -> str:
    """Return the systemd unit."""
    [found] = blocks(section(RUN, "4. Write a systemd unit"), "ini")
    return found


def service(text: str) -> dict[str, str]:
    """Return the entries of a unit's section of the service."""
    settings = ConfigParser(interpolation=None, strict=False)
    settings.optionxform = str  # type: ignore[assignment, method-assign]
    settings.read_string(text)
    return dict(settings["Service"])


def test_the_unit_runs_a_server(tmp_path: Path, unused_port: int) -> None:
    """In systemd's environment: it notifies systemd, and saves its locks in its directory."""
    entries = service(unit())
    [name, _, file] = entries["LoadCredential"].partition(":")
    assert file == "/etc/shop/lock-secret"
    write_secret(tmp_path / name, b"correct horse battery staple\n")
    command = entries["ExecStart"]
    for shown, here in {
        "/srv/shop/venv/bin/python": sys.executable,
        "/srv/shop/manage.py": "-m django",
        "127.0.0.1:7433": (address := f"{HOST}:{unused_port}"),
        "${CREDENTIALS_DIRECTORY}": str(tmp_path),
    }.items():
        assert command.count(shown) == 1
        command = command.replace(shown, here)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        notifications.bind(str(tmp_path / "notify"))
        notifications.settimeout(TIMEOUT)
        environment = worker_environment() | {
            "DJANGO_SETTINGS_MODULE": "tests.support.lock_server_settings",
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "STATE_DIRECTORY": str(tmp_path / "state"),
        }
        server = subprocess.Popen(tied(shlex.split(command)), cwd=ROOT, env=environment)
        try:
            assert notifications.recv(100) == b"READY=1"
            backend = ServerBackend(
                "unit",
                address=address,
                secret_file=str(tmp_path / name),
                store_timeout=TIMEOUT,
            )
            assert backend.status()["grace"] > 0
            backend.close()
            server.send_signal(signal.SIGTERM)
            assert notifications.recv(100) == b"STOPPING=1"
            assert server.wait(TIMEOUT) == 0
        finally:
            server.kill()
            server.wait()
    assert [path.name for path in (tmp_path / "state").glob("*.json")]


def with_a_unix_socket() -> str:
    """Return the unit with the lines for a unix socket."""
    [changed] = blocks(section(RUN, "Use a unix socket instead"), "ini")
    text = unit().replace("DynamicUser=yes\n", "")
    kept = [line for line in text.splitlines() if not line.startswith("ExecStart=")]
    return "\n".join(kept).replace("[Service]", f"[Service]\n{changed}") + "\n"


def test_unit_with_a_unix_socket_takes_these_options() -> None:
    """The socket is in the directory that systemd makes for the unit."""
    entries = service(with_a_unix_socket())
    parser = load_command_class("django_distlock", "run_lock_server").create_parser("", "")
    given = parser.parse_args(shlex.split(entries["ExecStart"])[3:])
    assert given.unix == f"/run/{entries['RuntimeDirectory']}/socket"
    assert f'"unix:{given.unix}"' in section(RUN, "Use a unix socket instead")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("text", [unit(), with_a_unix_socket()], ids=["unit", "unix"])
def test_systemd_understands_the_unit(tmp_path: Path, text: str) -> None:
    """Each line of it, without a warning."""
    file = tmp_path / "shop-locks.service"
    there = text.replace("/srv/shop/venv/bin/python", sys.executable)
    file.write_text(there.replace("User=shop", "User=root"))
    done = subprocess.run(
        ["systemd-analyze", "verify", file], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no OpenSSL here")
def test_other_machines_are_asked_by_tls(place: Place) -> None:
    """With a certificate and OPTIONS as on the page, all of which are needed."""
    heading = "Reach it from other machines by TLS"
    make, serve = (
        command.replace("locks.internal", "localhost")
        for command in console_commands(section(SECURE, heading))
    )
    subprocess.run(shlex.split(make), cwd=place.directory, check=True, capture_output=True)
    address = place.address.replace(HOST, "localhost")
    arguments = shlex.split(serve.replace("localhost:7433", address))[3:]
    given = [re.sub(r"^locks\.", f"{place.directory}/locks.", each) for each in arguments]
    options = {
        "address": address,
        "secret_file": str(place.secret_file),
        "tls_ca": str(place.directory / "locks.pem"),
    }
    locks = settings_of(SECURE, heading, **options)
    secret = ("--secret-file", str(place.secret_file), "--state", str(place.state))
    with Command(*given, *secret, "--no-grace") as running:
        running.serve()
        with override_settings(DISTLOCK=locks):
            lease = acquire_lock(SEMAPHORE)
            assert lease is not None
            lease.release()
        stranger = place.directory / "stranger.pem"
        trustme.CA().cert_pem.write_to_path(stranger)
        for changed, complaint in (
            ({"tls_ca": None, "store_timeout": 0.2}, "localhost"),  # the server waits for TLS
            ({"tls_ca": str(stranger)}, "certificate verify failed"),
        ):
            wrong = {"BACKEND": BACKEND, "OPTIONS": {**options, **changed}}
            with override_settings(DISTLOCK={"default": wrong}):
                with pytest.raises(LockBackendUnavailable, match=complaint):
                    acquire_lock(SEMAPHORE)


def test_secret_is_changed_while_nothing_is_granted(place: Place, secret: Path) -> None:
    """A worker with the old one gets nothing, and the pause outlasts the restart."""
    pause, held, write, *_, resume = console_commands(section(SECURE, "Change the secret"))
    assert write == MAKE_SECRET
    options = {"address": place.address, "secret_file": str(place.secret_file)}
    old = {"default": {"BACKEND": BACKEND, "OPTIONS": {**options, "store_timeout": TIMEOUT}}}
    with override_settings(DISTLOCK=old):
        with place.start("--no-grace") as running:
            running.serve()
            run(pause)
            run(held)
            working = lock_backends["default"]
            working.close()  # a server that stops waits for its clients
            running.stop()
        place.secret_file.write_bytes(secret.read_bytes())
        with place.start() as running:
            assert "Pauses of the earlier server in " in running.serve()
            with pytest.raises(LockBackendUnavailable, match="secret"):
                working.acquire(SEMAPHORE, "owner", 60, "")
            assert read_secret(str(place.secret_file)) == secret.read_bytes().strip()
            with override_settings(DISTLOCK=old):  # the site's next processes
                assert acquire_lock(SEMAPHORE) is None
                run(resume)
                lease = acquire_lock(SEMAPHORE)
                assert lease is not None
                lease.release()
                lock_backends["default"].close()


def run(command: str) -> None:
    """Run a command of the page in this process."""
    call_command(*shlex.split(command)[2:])
