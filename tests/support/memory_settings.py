"""Settings of a server process that keeps its locks in memory."""

from tests.settings import *  # noqa: F403

DISTLOCK = {"default": {"BACKEND": "django_distlock.backends.memory.MemoryBackend"}}
