"""docs/reference/with-lock.md describes the command as it is."""

from __future__ import annotations

import re

import pytest
from django.core.management import load_command_class

from django_distlock.management.exit_codes import ExitCode
from tests.support.paths import ROOT

pytestmark = pytest.mark.once

TEXT = (ROOT / "docs" / "reference" / "with-lock.md").read_text("utf-8")
OF_DJANGO = {
    *("verbosity", "settings", "pythonpath", "traceback"),
    *("no_color", "force_color", "skip_checks"),
}
SPELLED = {0.0: "0", 10.0: "10", 75: "75", "default": "default"}


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table under the heading."""
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+) \|$", section, re.MULTILINE)
    return [[cell.strip(" `") for cell in row.split(" | ")] for row in rows[1:]]


def test_options_are_those_of_the_command() -> None:
    """With their defaults, where those are plain values."""
    parser = load_command_class("django_distlock", "with_lock").create_parser("manage.py", "")
    parsed = vars(parser.parse_args(["semaphore", "command"]))
    options = parsed.keys() - OF_DJANGO - {"semaphore", "command"}
    defaults = {name: parsed[name] for name in options}
    documented = {row[0][2:].replace("-", "_"): row[1] for row in table("Arguments")}
    assert documented.keys() == options
    plain = {name: SPELLED[value] for name, value in defaults.items() if value is not None}
    assert {name: documented[name] for name in plain} == plain


def test_exit_codes_are_those_of_the_command() -> None:
    """Success is the command's; Ctrl-C is a signal as others."""
    cells = [row[0] for row in table("Exit codes")]
    documented = {int(code) for cell in cells for code in re.findall(r"\d+", cell)}
    assert documented == set(map(int, ExitCode)) - {ExitCode.DONE, ExitCode.INTERRUPTED} | {128}
