"""The admin page of locks; Django looks for it in this module."""

from .locks import LockAdmin

__all__ = ["LockAdmin"]
