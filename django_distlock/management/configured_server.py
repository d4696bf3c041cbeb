"""The ServerBackend in DISTLOCK that a lock server is for."""

from typing import cast

from django.utils.module_loading import import_string

from django_distlock.backends.server import ServerBackend
from django_distlock.conf import lock_backends
from django_distlock.exceptions import InvalidLockBackend


def configured_server(alias: str | None, *, needed: bool) -> ServerBackend | None:
    """Return the backend of this alias, or the only ServerBackend; None if there is none.

    Without an alias, several ServerBackends or a misconfigured one raise InvalidLockBackend if the
    backend is `needed`, and count as none otherwise.
    """
    if alias is not None:
        if alias in lock_backends.settings and not _is_server(alias):
            raise InvalidLockBackend(f"DISTLOCK[{alias!r}]: its BACKEND is no ServerBackend.")
        return _server(alias)
    aliases = [each for each in lock_backends if _is_server(each)]
    try:
        if len(aliases) > 1:
            raise InvalidLockBackend(
                f"DISTLOCK has several ServerBackends: give --backend, one of {', '.join(aliases)}."
            )
        return _server(aliases[0]) if aliases else None
    except InvalidLockBackend:
        if needed:
            raise
        return None


def _is_server(alias: str) -> bool:
    """Return whether this is a ServerBackend, even one with wrong OPTIONS."""
    try:
        found = import_string(lock_backends.settings[alias]["BACKEND"])
    except Exception:  # noqa: BLE001 - manage.py check reports what is wrong with other backends
        return False
    return isinstance(found, type) and issubclass(found, ServerBackend)


def _server(alias: str) -> ServerBackend:
    return cast("ServerBackend", lock_backends[alias])
