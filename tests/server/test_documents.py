"""docs/how-to/run-the-lock-server.md describes the options as they are, and its examples work."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from configparser import ConfigParser
from inspect import Parameter, signature
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand
from django.test import override_settings

from django_distlock import LockBackendUnavailable, acquire_lock, lock_backends
from django_distlock.backends.base import QueueingStore
from django_distlock.backends.server import ServerBackend
from tests.support.children import tied
from tests.support.documentation import DOCUMENTS, example
from tests.support.lock_servers import PATH, options_of, start_lock_server, write_secret
from tests.support.paths import ROOT
from tests.support.ports import HOST
from tests.support.processes import worker_environment

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from pathlib import Path

    from tests.support.servers import Server

TEXT = (DOCUMENTS / "how-to/run-the-lock-server.md").read_text(encoding="utf-8")
SEMAPHORE = "1234collectPayment"
TIMEOUT = 60


def section(heading: str) -> str:
    """Return the text under a heading."""
    [found] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def table(heading: str) -> dict[str, str]:
    """Return the options' defaults in the table there, some of which are prose."""
    rows = re.findall(r"^\| `([^`|]+)` \|([^|]*)\|", section(heading), re.MULTILINE)
    return {name: default.strip(" `") for name, default in rows}


def parser() -> ArgumentParser:
    """Return the command's parser."""
    return load_command_class("django_distlock", "run_lock_server").create_parser("", "")


def options(parser: ArgumentParser) -> dict[str, Any]:
    """Return the options with their defaults."""
    return {
        f"--{name.replace('_', '-')}": value for name, value in vars(parser.parse_args([])).items()
    }


def test_all_options_of_the_command_are_documented() -> None:
    """And no others, each with its default, in prose if it depends on something."""
    every_commands = options(BaseCommand().create_parser("", ""))
    own = {name: value for name, value in options(parser()).items() if name not in every_commands}
    documented = table("The command")
    assert documented.keys() == own.keys()
    fixed = {name: value for name, value in own.items() if value not in (None, False)}
    assert {name: type(value)(documented[name]) for name, value in fixed.items()} == fixed

    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", TEXT))
    assert mentioned - {"--settings", "--pythonpath", "--now", "--deploy"} == own.keys()


def test_all_options_of_the_backend_are_documented() -> None:
    """And no others, each with its default."""
    parameters = [
        parameter
        for parameter in signature(ServerBackend).parameters.values()
        if parameter.kind is Parameter.KEYWORD_ONLY
    ]
    expected = {
        parameter.name: "" if parameter.default is None else str(parameter.default)
        for parameter in parameters
    }
    assert table("Settings") == expected


@pytest.mark.needs("lock_server")
def test_the_quick_start_locks(capsys: pytest.CaptureFixture[str]) -> None:
    """With the settings there; the printed status is the documented one."""
    shown = example("how-to/run-the-lock-server.md", "Quick start").DISTLOCK
    # Its own server: the one that all tests share has other locks.
    with start_lock_server() as server, override_settings(DISTLOCK=shown):
        given = options_of(server)
        assert shown["default"]["OPTIONS"].keys() == given.keys()
        shown["default"]["OPTIONS"] = {**given, "store_timeout": TIMEOUT}
        lease = acquire_lock(SEMAPHORE)
        assert lease is not None
        store = lock_backends["default"]
        assert isinstance(store, QueueingStore)
        queued = store.join(SEMAPHORE, "owner", "holder", Event().set)
        assert queued is not None
        example("how-to/run-the-lock-server.md", "Watching it")
        store.leave(queued, False)
        lease.release()
    numbers, lock, page, pause = capsys.readouterr().out.splitlines()
    up, locks, waiters, connections, grace = numbers.split()
    assert float(up) > 0
    assert int(connections) >= 2
    assert (locks, waiters, grace) == ("1", "1", "0.0")
    assert lock.startswith(f"{SEMAPHORE} ")
    assert f" {lease.token} " in lock
    assert page == f"1 False ['{SEMAPHORE}']"
    assert "reason='deploy'" in pause


@pytest.mark.needs("lock_server_tls")
def test_other_machines_are_asked_by_tls(servers: dict[str, Server]) -> None:
    """With the options there, all of which are needed."""
    shown = example("how-to/run-the-lock-server.md", "Other machines").OPTIONS
    given = options_of(servers["lock_server_tls"])
    assert shown.keys() == given.keys()
    given["store_timeout"] = TIMEOUT
    with override_settings(DISTLOCK={"default": {"BACKEND": PATH, "OPTIONS": given}}):
        lease = acquire_lock(SEMAPHORE)
        assert lease is not None
        lease.release()
    without = {name: value for name, value in given.items() if name != "tls_ca"}
    without["store_timeout"] = 0.2  # the server waits for TLS
    with override_settings(DISTLOCK={"default": {"BACKEND": PATH, "OPTIONS": without}}):
        with pytest.raises(LockBackendUnavailable):
            acquire_lock(SEMAPHORE)


def unit() -> str:
    """Return the systemd unit."""
    [found] = re.findall(r"^```ini\n(.*?)^```$", section("As a service"), re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_unit_runs_a_server(tmp_path: Path, unused_port: int) -> None:
    """In systemd's environment: it notifies systemd, and saves its locks in its directory."""
    settings = ConfigParser(interpolation=None, strict=False)
    settings.optionxform = str  # type: ignore[assignment, method-assign]
    settings.read_string(unit())
    [name, _, file] = settings["Service"]["LoadCredential"].partition(":")
    assert file == "/etc/mysite/lock-secret"
    write_secret(tmp_path / name, b"correct horse battery staple\n")
    command = settings["Service"]["ExecStart"]
    parser().parse_args(shlex.split(command)[3:])  # raises for an unknown option
    for shown, here in {
        "/srv/mysite/venv/bin/python": sys.executable,
        "/srv/mysite/manage.py": "-m django",
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


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """Each line of it, without a warning."""
    file = tmp_path / "mysite-locks.service"
    file.write_text(unit().replace("/srv/mysite/venv/bin/python", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", file], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
