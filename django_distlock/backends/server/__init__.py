"""Locks in the memory of one dedicated process: `manage.py run_lock_server`."""

from .backend import ServerBackend

__all__ = ["ServerBackend"]
