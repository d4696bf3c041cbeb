"""Run the example project's commands."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import psutil

from tests.support.browser import TIMEOUT
from tests.support.children import tied
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


REQUESTS = 8


@contextmanager
def manage(project: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run one of the example's commands, and stop its processes at the end of the block."""
    process = subprocess.Popen(
        tied([sys.executable, "manage.py", *arguments]),
        cwd=project,
        env=os.environ
        | {
            "DJANGO_SETTINGS_MODULE": "example.settings",
            "PYTHONPATH": str(ROOT),
            "PYTHONUTF8": "1",
            "COLUMNS": "120",
            "REDIS_URL": "",  # The developer's own settings are not used.
        }
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if "PATH" in environment else None,
        text=True,
        encoding="utf-8",
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT)


def figures(table: str, row: str) -> list[int]:
    """Return the numbers in the row of the race's table that starts with these words."""
    (line,) = re.findall(rf"^\W*{row}\W.*$", table, re.MULTILINE)
    return [int(number) for number in re.findall(r"\d+", line)]


def rows_of_locks(project: Path) -> int:
    """Count the semaphores that were ever used in the example's database."""
    with closing(sqlite3.connect(project / "example.sqlite3")) as database:
        [(number,)] = database.execute("SELECT COUNT(*) FROM distlock_lock")
    return int(number)


def assert_nothing_runs(project: Path, *servers: str) -> None:
    """Check that no process of the example is left, nor one with such a server in its command."""
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cwd", "cmdline"])
        if process.info["cwd"] == str(project)
        or any(server in " ".join(process.info["cmdline"] or ()) for server in servers)
    ]
    assert left == []


def address_in(url: str) -> str:
    """Return the host and port, as redis-server has them in its command."""
    return url.rpartition("/")[2]
