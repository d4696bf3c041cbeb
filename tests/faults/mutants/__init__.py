"""Stores with a mistake. Each module has apply(), which makes it, in the process that has it."""

MUTANT = "DISTLOCK_FAULTS_MUTANT"
"""The environment variable that names a mistake of the lock server."""
