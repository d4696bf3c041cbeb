"""`python -m tests.faults`: run stores under faults, and judge what their workers saw.

Each run has a seed, which its faults and its workers' choices are drawn from. What a bad run has
left is kept, with the command that runs it again.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from dataclasses import fields
from pathlib import Path
from tempfile import mkdtemp

from tests.faults.nursery import Nursery
from tests.faults.runner import Result, Scale, check, run, work_of
from tests.faults.stores import STORES

KEPT = Path("fault-histories")


def main() -> None:
    """Run, and exit with 1 if a promise was broken."""
    # What it has started and mounted is stopped and unmounted then, also in the background.
    for fault in (signal.SIGINT, signal.SIGTERM):
        signal.signal(fault, signal.default_int_handler)
    options = parse_arguments()
    if options.check:
        sys.exit(not show(check(options.check)))
    stores = options.store or sorted(STORES)
    bad = [store for store in stores if not run_store(store, options)]
    if bad:
        sys.exit(f"Promises were broken: {', '.join(bad)}")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--store", action="append", choices=sorted(STORES), help="default: all")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first run")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each store")
    parser.add_argument("--operations", type=int, default=0, help="rather than --minutes")
    parser.add_argument("--seconds", type=float, default=Scale.seconds, help="of one run")
    parser.add_argument("--workers", type=int, default=Scale.workers, help="processes")
    parser.add_argument("--actors", type=int, default=Scale.actors, help="threads or tasks in each")
    parser.add_argument("--semaphores", type=int, default=Scale.semaphores)
    parser.add_argument("--pace", type=float, default=Scale.pace, help="seconds between two turns")
    parser.add_argument("--calm", type=float, default=Scale.calm, help="fewer faults, if over 1")
    parser.add_argument("--burst", type=int, default=Scale.burst, help="tries in a row, at most")
    parser.add_argument("--late", type=float, default=Scale.late, help="share of late increments")
    parser.add_argument("--ttls", type=float, nargs="+", default=(), help="the store's by default")
    parser.add_argument("--faults", nargs="*", help="only these, or none; default: all")
    parser.add_argument("--mutant", default="", help="a module of tests.faults.mutants to apply")
    parser.add_argument("--keep", type=Path, default=KEPT, help="where bad runs are kept")
    parser.add_argument("--check", type=Path, help="judge again what a run has left there")
    return parser.parse_args()


def run_store(store: str, options: argparse.Namespace) -> bool:
    """Run a store, seed after seed; return whether all was good."""
    scale = Scale(**{each.name: getattr(options, each.name) for each in fields(Scale)})
    end = time.monotonic() + options.minutes * 60
    seed, operations, good = options.seed, 0, True
    temporary = Path(mkdtemp(prefix="distlock-faults-"))
    with STORES[store]() as environment, Nursery(environment, options.mutant) as nursery:
        nursery.finish("prepare", work_of(environment, scale, temporary))
        while operations < options.operations or (
            not options.operations and time.monotonic() < end
        ):
            folder = temporary / f"{store}-{seed}"
            result = run(environment, nursery, seed, scale, folder)
            if not show(result):
                good = False
                keep(folder, options)
            shutil.rmtree(folder, ignore_errors=True)
            operations += result.total
            seed += 1
    shutil.rmtree(temporary)
    print(f"{store}: {operations} operations, seeds {options.seed} to {seed - 1}")
    return good


def show(result: Result) -> bool:
    """Print a result; return whether it is good."""
    faults = ", ".join(sorted({each.fault for each in result.performed}))
    print(f"{result.store}, seed {result.seed}: {result.total} operations; {faults}")
    for kind, number in sorted(result.operations.items()):
        print(f"    {number:8} {kind}")
    for error in result.errors:
        print(error, file=sys.stderr)
    for violation in result.violations[:10]:
        print(f"  BROKEN: {violation}")
    if len(result.violations) > 10:
        print(f"  … and {len(result.violations) - 10} more")
    return result.is_good


def keep(folder: Path, options: argparse.Namespace) -> None:
    """Keep what a bad run has left, and print how to run and how to judge it again."""
    kept = options.keep / folder.name
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    store, seed = folder.name.rsplit("-", 1)
    changed = []
    for name in (*(each.name for each in fields(Scale)), "mutant"):
        value = getattr(options, name)
        if value not in (None, "", ()):
            words = value if isinstance(value, list) else [value]
            changed.append(" ".join(map(str, [f"--{name}", *words])))
    again = f"python -m tests.faults --store {store} --seed {seed} --operations 1"
    print(f"Run it again:   {again} {' '.join(changed)}")
    print(f"Judge it again: python -m tests.faults --check {kept}")


if __name__ == "__main__":
    main()
