"""docs/reference/commands.md has every command and option, and none that doesn't exist."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from django.core.management import load_command_class

from django_distlock.management.exit_codes import ExitCode
from django_distlock.management.output.rows import lock_row, pause_row
from django_distlock.management.output.tables import HEADINGS
from django_distlock.records import LockInfo, LockState, Pause
from tests.support.documentation import DOCUMENTS
from tests.support.documentation import section as section_of
from tests.support.paths import ROOT

pytestmark = pytest.mark.once

COMMANDS = {"clear_stale_locks", "list_locks", "pause_locks", "release_lock", "resume_locks"}
ELSEWHERE = {
    "with_lock": "with-lock.md",
    "run_lock_server": "lock-server.md",
}
"""Commands that have a page of their own."""
DJANGOS = {
    *("--help", "--version", "--verbosity", "--settings", "--pythonpath", "--traceback"),
    *("--no-color", "--force-color", "--skip-checks"),
}
TEXT = (DOCUMENTS / "reference" / "commands.md").read_text("utf-8")


def section(heading: str) -> str:
    """Return the text under the heading."""
    return section_of("reference/commands.md", heading)


def names(text: str) -> list[str]:
    """Return the spellings of an option, or the name of an argument."""
    return re.findall("--[a-z-]+", text) or re.findall("[A-Z]+", text)


def documented(command: str) -> set[str]:
    """Return the options, and arguments, that the table of the command has."""
    [table] = re.findall(
        r"^\| option \| means \|\n(.*?)\n\n", section(command), re.MULTILINE | re.DOTALL
    )
    named = [name for row in table.splitlines()[1:] for name in names(row.split(" | ")[0])]
    assert len(named) == len({*named})
    return {*named}


def existing(command: str) -> set[str]:
    """Return the options, and arguments, that the command takes, according to its --help."""
    parser = load_command_class("django_distlock", command).create_parser("manage.py", command)
    lines = re.findall(r"^  (?! )(.*)", parser.format_help(), re.MULTILINE)
    return {name for line in lines for name in names(line.split("  ")[0])} - DJANGOS


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_documented_options_are_those_of_the_command(command: str) -> None:
    """An option that is missing there is never found; one too many is an error message."""
    assert documented(command) == existing(command)


def test_every_command_is_in_the_list() -> None:
    """And each that is listed exists."""
    folder = ROOT / "django_distlock" / "management" / "commands"
    found = {path.stem for path in folder.glob("[a-z]*.py")}
    listed = dict(re.findall(r"\[`(\w+)`\]\((.*?)\)", TEXT.split("\n## ")[0]))
    assert found == listed.keys()
    assert listed == {name: f"#{name}" for name in COMMANDS} | ELSEWHERE


def test_exit_codes_are_those_of_the_commands() -> None:
    """All of them."""
    cells = re.findall(r"^\| ([\d, ]+) \| ", section("Common to all"), re.MULTILINE)
    assert [int(code) for cell in cells for code in cell.split(",")] == [*ExitCode]


def keys(title: str) -> list[str]:
    """Return the keys in the table below this line."""
    table = section("Common to all").partition(f"{title}\n")[2].split("\n\n")[0]
    cells = re.findall(r"^\| (`.*?) \| ", table, re.MULTILINE)
    return [key for cell in cells for key in re.findall(r"`(\w+)`", cell)]


def test_keys_of_json_are_those_of_the_rows() -> None:
    """In their order."""
    now = datetime.now(UTC)
    lock = LockInfo("1234collectPayment", LockState.HELD, 1, "web1", now, now, now)
    assert keys("A row of a lock:") == [*lock_row("default", lock)]
    assert keys("A row of a pause:") == [*pause_row("default", Pause("1234", now, None))]


def test_columns_of_the_table_are_explained() -> None:
    """All but the name."""
    table = section("list_locks").partition("| column |")[2].split("\n\n")[0]
    assert ["SEMAPHORE", *re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)] == [*HEADINGS]
