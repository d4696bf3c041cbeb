"""Locks in Redis."""

from .backend import RedisBackend

__all__ = ["RedisBackend"]
