"""`python -m tests.simulation --seeds 100000 --jobs 2`: run universes, each from its seed.

A seed that breaks a promise is printed with the command that shows all that happened in it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.simulation.campaign import Summary, run_in_processes, run_universes, set_up


def main() -> None:
    """Run, and exit with 1 if a promise was broken."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    options = parse_arguments()
    if options.show is not None:
        sys.exit(show(options.show, options.mutant))
    if options.mutants:
        sys.exit(try_mutants(range(options.first, options.first + options.seeds)))
    seeds = range(options.first, options.first + options.seeds)
    total, began = Summary(), time.monotonic()
    for summary in run_in_processes(seeds, options.jobs):
        report(summary)
        total.add(summary)
        if sys.stderr.isatty():
            print(f"\r{total.universes} of {len(seeds)}", end="", file=sys.stderr)
    print(f"{total}, in {time.monotonic() - began:.0f} s with {options.jobs} processes.")
    sys.exit(bool(total.problems))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many universes")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--show", type=int, metavar="SEED", help="print all that happens in one")
    parser.add_argument("--mutant", default="", help="run --show with one of --mutants")
    parser.add_argument(
        "--mutants", action="store_true", help="how many seeds show each of the known mistakes"
    )
    return parser.parse_args()


def report(summary: Summary) -> None:
    """Print each seed that broke a promise, and how to see it again."""
    for seed, problems in summary.problems.items():
        print(f"seed {seed}: python -m tests.simulation --show {seed}")
        for problem in problems:
            print(f"    {problem}")


def show(seed: int, mutant: str) -> bool:
    """Print all that happens in a universe; return whether a promise was broken."""
    set_up()
    from tests.simulation.installation import installed
    from tests.simulation.mutants import MUTANTS, NOT_MUTATED
    from tests.simulation.universe import Universe

    with installed() as errors:
        result = Universe(seed, MUTANTS[mutant] if mutant else NOT_MUTATED).run()
    print(result.trace())
    print(*result.problems, *errors.lines, sep="\n")
    return bool(result.problems or errors.lines)


def try_mutants(seeds: range) -> bool:
    """Print which seed is the first to show each mistake; return whether one was not shown."""
    set_up()
    from tests.simulation.mutants import MUTANTS

    unseen = []
    for mutant in MUTANTS:
        summary = run_universes(seeds, mutant, stop=True)
        if not summary.problems:
            unseen.append(mutant)
            print(f"{mutant}: not seen in {summary.universes} universes", flush=True)
        for seed, problems in summary.problems.items():
            print(f"{mutant}: seed {seed}: {problems[0].splitlines()[0]}", flush=True)
    return bool(unseen)


if __name__ == "__main__":
    main()
