"""Settings of the lock server that a run starts, which may be a mutant of it."""

import os
from importlib import import_module

from tests.faults.mutants import MUTANT
from tests.support.lock_server_settings import *  # noqa: F403

if _mutant := os.environ.get(MUTANT):
    import_module(f"tests.faults.mutants.{_mutant}").apply()
