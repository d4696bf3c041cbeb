"""`python -m tests.support.versions <scenario>`: versions of a site that run side by side.

Each version is a process with settings and code of its own. In turn, two of them run at the same
time, as in a rolling deploy, and do one job again and again. It prints how often two workers did
it at once, for each pair.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from contextlib import suppress
from traceback import format_exception
from types import ModuleType
from typing import Any

import django
from django.conf import settings

STATE, DONE, INSIDE, TOGETHER = 0, 8, 16, 24
"""Where the shared bytes are: of each version its state, and how often it did the job; the version
that is at work now; and how often two were at once."""
IDLE, RUNNING, STOPPING, ENDING = range(4)
ENOUGH = 15
"""How often each of two versions does the job while the other one runs."""
PATIENCE = 60.0


def main() -> None:
    """Run each pair of versions, and print how often two workers were at it at once."""
    scenario = json.loads(sys.argv[1])
    shared = mmap.mmap(-1, 32)
    children = [
        start(number, version, shared) for number, version in enumerate(scenario["versions"])
    ]
    try:
        print(json.dumps([run_pair(pair, shared) for pair in scenario["pairs"]]))
    finally:
        shared[STATE : STATE + len(children)] = bytes([ENDING] * len(children))
        for child in children:
            os.waitpid(child, 0)


def run_pair(pair: list[int], shared: mmap.mmap) -> int:
    """Run two versions until each has done the job often; return how often both did at once."""
    shared[TOGETHER] = 0
    give_up = time.monotonic() + PATIENCE
    for number in pair:
        shared[DONE + number] = 0
        shared[STATE + number] = RUNNING
    while min(shared[DONE + number] for number in pair) < ENOUGH:
        assert time.monotonic() < give_up, [*shared]
        time.sleep(0.002)
    for number in pair:
        shared[STATE + number] = STOPPING
    while any(shared[STATE + number] != IDLE for number in pair):
        assert time.monotonic() < give_up, [*shared]
        time.sleep(0.002)
    return shared[TOGETHER]


def start(number: int, version: dict[str, Any], shared: mmap.mmap) -> int:
    """Fork a process of this version; return its id."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work(number, version, shared)
            status = 0
        finally:
            errors = filter(None, [sys.exception()])
            sys.stderr.writelines(line for each in errors for line in format_exception(each))
            sys.stderr.flush()
            os._exit(status)
    return child


def work(number: int, version: dict[str, Any], shared: mmap.mmap) -> None:
    """Try to do the job whenever this version runs."""
    settings.configure(
        SECRET_KEY="not a secret", INSTALLED_APPS=["django_distlock"], **version["settings"]
    )
    django.setup()
    from django_distlock import LockNotAcquired

    def collect_payment(customer_id: int) -> None:
        if shared[INSIDE]:
            shared[TOGETHER] = min(shared[TOGETHER] + 1, 0xFF)
        shared[INSIDE] = number + 1
        time.sleep(0.0005)
        shared[INSIDE] = 0
        shared[DONE + number] = min(shared[DONE + number] + 1, 0xFF)

    payments = ModuleType("shop.payments")
    vars(payments)["collect_payment"] = collect_payment
    sys.modules |= {"shop": ModuleType("shop"), "shop.payments": payments}
    code: dict[str, Any] = {"__name__": "shop.views"}
    exec(version["code"], code)
    while (state := shared[STATE + number]) != ENDING:
        if state == RUNNING:
            with suppress(LockNotAcquired):
                code["collect"](1234)
        elif state == STOPPING:
            shared[STATE + number] = IDLE
        time.sleep(0.0005)


if __name__ == "__main__":
    main()
