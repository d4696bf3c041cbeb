"""The Compose file of docs/how-to/run-the-lock-server.md fits the settings beside it."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import Any

import pytest
from django.core.management import load_command_class

from tests.support.documentation import blocks, example, section

yaml = pytest.importorskip("yaml")
pytestmark = pytest.mark.once

PAGE, HEADING = "how-to/run-the-lock-server.md", "Run it in a container"


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Return the volume at each path of a service."""
    pairs = (each.split(":") for each in service["volumes"])
    return {path: volume for volume, path in pairs}


def test_containers_share_the_socket_the_secret_and_the_user() -> None:
    """The state outlasts the container; the commands know their options."""
    [source] = blocks(section(PAGE, HEADING), "yaml")
    file = yaml.safe_load(source)
    locks, web = file["services"]["locks"], file["services"]["web"]
    [options] = [store["OPTIONS"] for store in example(PAGE, HEADING).DISTLOCK.values()]
    socket = str(PurePosixPath(options["address"].removeprefix("unix:")).parent)
    assert mounts(locks)[socket] == mounts(web)[socket]
    assert locks["user"] == web["user"]
    [secret] = locks["secrets"]
    assert web["secrets"] == [*file["secrets"]] == [secret]
    assert options["secret_file"] == f"/run/secrets/{secret}"
    parser = load_command_class("django_distlock", "run_lock_server").create_parser("", "")
    given = parser.parse_args(shlex.split(locks["command"])[3:])
    assert str(PurePosixPath(given.state).parent) in mounts(locks)
    assert parser.parse_args(shlex.split(locks["healthcheck"]["test"])[3:]).status
    assert {*mounts(locks).values()} == {*file["volumes"]}
