"""Settings of the lock server that a run starts, which may be a mutant of it."""

import os
from importlib import import_module

from tests.faults.mutants import MUTANT
from tests.support.lock_server_settings import *  # noqa: F403


def mistake() -> None:
    """Make the mistake that the environment names, if there is one."""
    if mutant := os.environ.get(MUTANT):
        import_module(f"tests.faults.mutants.{mutant}").apply()


mistake()
