"""The admin page, found by Django under this name."""

from .locks import LockAdmin

__all__ = ["LockAdmin"]
