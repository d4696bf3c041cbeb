"""docs/reference/lock-server.md has each option, output line and status, and no others."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand

from django_distlock.management.exit_codes import ExitCode
from django_distlock.records import ServerStatus
from django_distlock.server.pauses import MAX_PAUSES
from tests.support.documentation import DOCUMENTS, rows, section, text_of
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from argparse import ArgumentParser

pytestmark = pytest.mark.once

PAGE = "reference/lock-server.md"
PAGES = [PAGE, "how-to/run-the-lock-server.md", "how-to/secure-the-lock-server.md"]


def table(heading: str) -> dict[str, str]:
    """Return the options' defaults in the table there, some of which are prose."""
    return {row[0].strip("`"): row[1].strip("` ") for row in rows(section(PAGE, heading))}


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


@pytest.mark.parametrize("page", PAGES)
def test_options_that_pages_name_exist(page: str) -> None:
    """Those of other commands aside."""
    text = (DOCUMENTS / page).read_text("utf-8")
    others = {"--settings", "--pythonpath", "--now", "--deploy", "--all", "--reason", "--state"}
    assert {*re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)} <= options(parser()).keys() | others


def test_exit_codes_are_those_of_every_command() -> None:
    """It runs nothing and waits for no lock, so it has no others."""
    assert [int(row[0]) for row in rows(section(PAGE, "Exit codes"))] == [
        ExitCode.DONE,
        ExitCode.ERROR,
        ExitCode.USAGE,
    ]


def test_output_has_the_lines_that_the_server_writes() -> None:
    """Both ways."""
    trees = [
        ast.parse(file.read_text("utf-8"))
        for file in (ROOT / "django_distlock" / "server").glob("*.py")
    ]
    written = {
        text_of(call.args[0])
        for tree in trees
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and (getattr(call.func, "id", "") or getattr(call.func, "attr", ""))
        in {"write_line", "_write_line"}
    }
    shown = re.findall(r"^\| .* \| `(.*)` \|$", section(PAGE, "Output"), re.MULTILINE)
    assert {*shown} == written


def test_status_has_the_numbers_that_the_server_tells() -> None:
    """Both ways."""
    assert table("Status").keys() == ServerStatus.__annotations__.keys()


def test_number_of_pauses_is_the_servers() -> None:
    """The page and the protocol's say how many there may be."""
    assert f"| {MAX_PAUSES} pauses |" in section(PAGE, "Limits")
    assert f"{MAX_PAUSES} pauses" in (DOCUMENTS / "reference" / "protocol.md").read_text("utf-8")


OPENSSLS = {"certificate verify failed"}
"""Messages of others that the pages explain."""


@pytest.mark.parametrize("page", PAGES[1:])
def test_messages_that_can_go_wrong_are_those_of_the_code(page: str) -> None:
    """A reader who searches for what the server says finds it."""
    said = [
        text
        for file in (ROOT / "django_distlock").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Constant | ast.JoinedStr) and (text := text_of(node))
    ]
    table = section(page, "What can go wrong")
    first = "".join(re.findall(r"^\| (.*?) \| ", table, re.MULTILINE))
    shown = {*re.findall(r"`([^`]* [^`]*)`", first)} - OPENSSLS
    assert shown
    for message in shown:
        # Numbers are those of an example.
        parts = [re.escape(part) for part in re.split(r"…|\b\d+\b", message)]
        pattern = re.compile("(?:.*)".join(parts), re.DOTALL)
        assert any(pattern.search(text) for text in said), message
