"""`python -m tests.support.pods <number> <arguments of with_lock>`: pods that start at once.

Each is a process forked from this one, which has imported Django, but not connected to anything.
It prints the exit codes.
"""

from __future__ import annotations

import json
import os
import sys
from typing import NoReturn

import django
from django.core import management
from django.core.management import ManagementUtility

from django_distlock.conf import lock_backends


def main() -> None:
    """Fork the pods, let them start when all are there, and print how they ended."""
    number, *arguments = sys.argv[1:]
    django.setup()
    management.load_command_class("django_distlock", "with_lock")
    assert lock_backends["default"].alias  # imports the driver, and connects to nothing
    reading, writing = os.pipe()
    pods = []
    for _ in range(int(number)):
        pod = os.fork()
        if not pod:
            os.close(writing)
            run_pod(reading, arguments)
        pods.append(pod)
    os.close(writing)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pod, 0)[1]) for pod in pods]))


def run_pod(start: int, arguments: list[str]) -> NoReturn:
    """Run with_lock when all pods are there: when nobody can write to the pipe any more."""
    code = 1
    try:
        os.read(start, 1)
        os.close(start)
        ManagementUtility(["manage.py", "with_lock", *arguments]).execute()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
