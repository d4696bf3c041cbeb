"""Locks as rows of a table. The semaphore is unique, so only one owner can write the row."""

from .backend import DatabaseBackend

__all__ = ["DatabaseBackend"]
