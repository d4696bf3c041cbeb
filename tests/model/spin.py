"""Check the model by Spin: exhaustively, for a counterexample, or along one random run."""

from __future__ import annotations

import re
import resource
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL: Final = Path(__file__).with_name("locks.pml")
DEPTH: Final = 3_000_000
"""The longest run that the search follows, in steps."""
MEMORY: Final = 1_000
"""Megabytes that a search may use."""
LIMIT: Final = 600
"""Seconds after which a search has failed."""

STEP: Final = re.compile(r"STEP (\d) (\w+) (\d) (\w+) (\d+)")


class Step(NamedTuple):
    """One step of a run."""

    client: int
    """From 1 on; 0: it is the store's, or an operator's, or time passes."""
    action: str
    lock: int
    outcome: str
    remaining: int
    """Ticks until the client's lease ends by its own clock."""

    def __str__(self) -> str:
        action = self.action.replace("_", " ")
        if not self.client:
            return action
        return f"client {self.client}: {action}, lock {self.lock}: {self.outcome}"


@dataclass(frozen=True)
class Search:
    """What an exhaustive search found."""

    states: int
    transitions: int
    depth: int
    seconds: float
    """Of CPU, with the time for compiling."""
    megabytes: float
    violated: str
    """The assertion that failed; empty if all hold."""
    unreached: list[str]
    """The places in the model that no run reaches."""


def search(*flags: str) -> Search:
    """Visit every state of the model with these flags, or stop at the first that is wrong."""
    before = _cpu_time()
    optimization = "-O0" if "-DPROMPT" in flags else "-O1"  # compiling takes longer than these
    with _compiled(flags, optimization, "-DNOREDUCE") as directory:
        report = _run(["./pan", f"-m{DEPTH}", "-w22"], directory)
    assert "max search depth too small" not in report, report
    return Search(
        states=_number(r"(\d+) states, stored", report),
        transitions=_number(r"(\d+) transitions", report),
        depth=_number(r"depth reached (\d+)", report),
        seconds=_cpu_time() - before,
        megabytes=float(re.findall(r"([\d.]+)\s+total actual memory usage", report)[0]),
        violated="".join(re.findall(r"pan:1: (.*)", report)),
        unreached=[
            place
            for place in re.findall(r"state \d+, \"(.*)\"", report)
            if place != "-end-"  # no process ends
        ],
    )


def counterexample(*flags: str) -> list[Step]:
    """Return the shortest run that ends in a state that is wrong; empty if there is none."""
    with _compiled(flags, "-O0", "-DBFS") as directory:
        report = _run(["./pan", "-w20", "-n"], directory)
        trail = directory / f"{MODEL.name}.trail"
        if not trail.exists():
            assert "errors: 0" in report, report
            return []
        return _steps(_run(["spin", "-t", "-k", trail.name, "-T", *flags, str(MODEL)], directory))


def random_run(seed: int, moves: int, *flags: str) -> list[Step]:
    """Return the steps of one run, chosen by the seed. A step has about ten moves."""
    with tempfile.TemporaryDirectory() as directory:
        command = ["spin", f"-n{seed}", f"-u{moves}", "-T", *flags, str(MODEL)]
        return _steps(_run(command, Path(directory)))


def _steps(report: str) -> list[Step]:
    return [
        Step(int(client), action, int(lock), outcome, int(remaining))
        for client, action, lock, outcome, remaining in STEP.findall(report)
    ]


@contextmanager
def _compiled(flags: tuple[str, ...], *options: str) -> Iterator[Path]:
    """Compile the search in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="distlock-model-") as name:
        directory = Path(name)
        _run(["spin", "-a", *flags, str(MODEL)], directory)
        compiler = ["gcc", "-w", "-DSAFETY", f"-DMEMLIM={MEMORY}", *options]
        _run([*compiler, "-o", "pan", "pan.c"], directory)
        yield directory


def _run(command: list[str], directory: Path) -> str:
    """Run the command; return its output."""
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, check=False, timeout=LIMIT
    )
    output = done.stdout + done.stderr
    # Spin's simulation exits with 1 at the assertion that fails, after it has printed the steps.
    assert done.returncode == 0 or "assertion violated" in output, output
    return output


def _number(pattern: str, report: str) -> int:
    return int(re.findall(pattern, report)[0])


def _cpu_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
