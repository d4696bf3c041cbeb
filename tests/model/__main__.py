"""Check the model, and print what was searched: python -m tests.model [--ttl 3]."""

from __future__ import annotations

import argparse
import sys

from .premises import CHECKS, PREMISES
from .spin import counterexample, search


def main() -> None:
    """Check the promise of each store, and print the counterexample of each dropped premise."""
    ttl = f"-DTTL={parse_arguments().ttl}"
    wrong = False
    print(f"{'what is checked':44} {'states':>9} {'transitions':>12} {'CPU s':>6} {'MB':>5}")
    for name, flags in CHECKS.items():
        found = search(*flags, ttl)
        wrong = wrong or bool(found.violated or found.unreached)
        print(
            f"{name:44} {found.states:9,} {found.transitions:12,} {found.seconds:6.1f} "
            f"{found.megabytes:5.0f} {found.violated or 'holds'}"
        )
    for premise in PREMISES:
        steps = counterexample(*premise.flags, ttl)
        wrong = wrong or not steps
        print(f"\nWithout the premise that {premise}:")
        print(*(f"  {step}" for step in steps), sep="\n")
    sys.exit(wrong)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--ttl", type=int, default=2, choices=[2, 3], help="in ticks")
    return parser.parse_args()


if __name__ == "__main__":
    main()
