"""Locks as rows of a table whose semaphore is unique: who can't write the row has not got it."""

from .backend import DatabaseBackend

__all__ = ["DatabaseBackend"]
