"""`python -m tests.support.workers <what> <arguments>`: one worker process.

It says "ready" and waits for a line on its standard input, so that all workers start at once.
"""

import json
import os
import sys

import django

from tests.support.workers import holders, interruptions, races, sentry, stopped, upkeep, visits

WORKERS = {
    name: function
    for module in (holders, interruptions, races, sentry, stopped, upkeep, visits)
    for name, function in vars(module).items()
    if getattr(function, "__module__", None) == module.__name__
}


def main() -> None:
    """Get ready, wait for the start, and print the result."""
    what, *arguments = sys.argv[1:]
    django.setup()
    if "DISTLOCK_TEST_LASTING_OFFERS" in os.environ:
        from tests.support import postgresql_waiters, redis_stores

        postgresql_waiters.let_offers_last()
        redis_stores.let_offers_last()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(WORKERS[what](*arguments)), flush=True)
    sys.stdin.readline()  # until all are done: a process releases its leases when it ends


if __name__ == "__main__":
    main()
