"""The DISTLOCK setting, which is read here alone, and the stores that it describes."""

import inspect
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core.cache.backends.base import BaseCache
from django.core.signals import setting_changed
from django.utils.connection import BaseConnectionHandler
from django.utils.module_loading import import_string

from .arguments import plain, show, validate_alias
from .backends.base import BaseLockBackend
from .backends.cache_checks import describe
from .exceptions import InvalidLockBackend, LockBackendUnavailable
from .redaction.credentials import shows_credentials, without_credentials
from .redaction.tracebacks import ClearedVariables

if TYPE_CHECKING:
    _ConnectionHandler = BaseConnectionHandler[BaseLockBackend]
else:
    _ConnectionHandler = BaseConnectionHandler

DEFAULT: Final[dict[str, Any]] = {
    "default": {"BACKEND": "django_distlock.backends.database.DatabaseBackend", "OPTIONS": {}}
}


on_created: Final[list[Callable[[BaseLockBackend], object]]] = []
"""Called with each store that is made."""


class LockBackendHandler(_ConnectionHandler):
    """The stores by their alias in `DISTLOCK`. Each thread makes its own, at their first use."""

    settings_name = "DISTLOCK"
    exception_class = InvalidLockBackend
    thread_critical = True

    def __init__(self, configured: dict[str, Any] | None = None) -> None:
        super().__init__(configured)
        self._connections = threading.local()  # does what `thread_critical` asks for, but faster

    def configure_settings(self, configured: dict[str, Any] | None) -> dict[str, Any]:
        if configured is None:
            configured = getattr(settings, "DISTLOCK", DEFAULT)
        if not isinstance(configured, dict):
            raise InvalidLockBackend("DISTLOCK: must be a dict of aliases.")
        for alias in configured:
            if not isinstance(alias, str):
                raise InvalidLockBackend(f"DISTLOCK: an alias is a str, not {show(alias)}.")
        return {plain(alias): backend for alias, backend in configured.items()}

    def __getitem__(self, alias: str) -> BaseLockBackend:
        if type(alias) is not str:
            alias = validate_alias(alias)
        store: BaseLockBackend | None = vars(self._connections).get(alias)
        if store is not None:
            return store
        if alias not in self.settings:
            known = ", ".join(map(repr, self.settings)) or "no alias"
            raise InvalidLockBackend(f"DISTLOCK[{alias!r}]: not configured; DISTLOCK has {known}.")
        return super().__getitem__(alias)

    def __iter__(self) -> Iterator[str]:
        return iter(self.settings)

    def all(self, initialized_only: bool = False) -> list[BaseLockBackend]:
        """Return the stores; only those that this thread has made already, if asked for."""
        return list(super().all(initialized_only))

    def reset(self) -> None:
        """Forget the settings and the stores made from them."""
        super().__init__()
        vars(self).pop("settings", None)
        self._connections = threading.local()  # last: no store by the earlier settings stays

    def create_connection(self, alias: str) -> BaseLockBackend:
        try:
            with ClearedVariables():
                return self._create(alias)
        except (InvalidLockBackend, LockBackendUnavailable) as error:
            if not shows_credentials(error):
                raise
            redacted = type(error)(without_credentials(error))
        raise redacted  # without its cause, which shows them, too

    def _create(self, alias: str) -> BaseLockBackend:
        name, configured = f"DISTLOCK[{alias!r}]", self.settings[alias]
        if not isinstance(configured, dict) or not isinstance(configured.get("BACKEND"), str):
            raise InvalidLockBackend(f"{name}: must be a dict with a BACKEND, a dotted path.")
        if unknown := configured.keys() - {"BACKEND", "OPTIONS"}:
            raise InvalidLockBackend(
                f"{name}: unknown {', '.join(sorted(map(repr, unknown)))}; it has BACKEND and "
                "OPTIONS only."
            )
        backend = _import_backend(name, plain(configured["BACKEND"]))
        options = configured.get("OPTIONS", {})
        if not isinstance(options, dict):
            raise InvalidLockBackend(f"{name}: OPTIONS must be a dict.")
        options = {plain(option): plain(value) for option, value in options.items()}
        _check_options(name, backend, alias, options)
        store = backend(alias, **options)
        for call in on_created:
            call(store)
        return store


def _import_backend(name: str, path: str) -> type[BaseLockBackend]:
    try:
        backend = import_string(path)
    # ValueError: the module's name is empty; TypeError: it is relative; RuntimeError: the app of
    # the module's models isn't installed.
    except (ImportError, ValueError, TypeError, RuntimeError) as error:
        raise InvalidLockBackend(f"{name}: could not import BACKEND {path!r}: {error}") from error
    if isinstance(backend, type) and issubclass(backend, BaseCache):
        raise InvalidLockBackend(
            f"{name}: BACKEND {path!r} {describe(backend)} The cache itself goes into "
            "OPTIONS['cache'], by its alias in CACHES."
        )
    if not (isinstance(backend, type) and issubclass(backend, BaseLockBackend)):
        raise InvalidLockBackend(
            f"{name}: BACKEND {path!r} is not a BaseLockBackend: name the class of a store."
        )
    if inspect.isabstract(backend):
        missing = ", ".join(sorted(backend.__abstractmethods__))
        raise InvalidLockBackend(f"{name}: BACKEND {path!r} is abstract: it has no {missing}.")
    return backend


def _check_options(
    name: str, backend: type[BaseLockBackend], alias: str, options: dict[str, Any]
) -> None:
    signature = inspect.signature(backend)
    try:
        signature.bind(alias, **options)
    except TypeError as error:
        known = ", ".join([*signature.parameters][1:]) or "no options"  # without the alias
        raise InvalidLockBackend(
            f"{name}: wrong OPTIONS: {error}; {backend.__name__} takes {known}."
        ) from error


lock_backends = LockBackendHandler()
"""The stores, by their aliases: `lock_backends["default"]`. Each thread makes its own stores.

Iterating yields the aliases. An alias that `DISTLOCK` doesn't have, or one that is configured
wrongly, raises `InvalidLockBackend`.
"""


def _reset(*, setting: str, **kwargs: Any) -> None:
    if setting == "DISTLOCK":
        lock_backends.reset()


def connect_signals() -> None:
    """Make `override_settings(DISTLOCK=…)` take effect at once."""
    setting_changed.connect(_reset, dispatch_uid="django_distlock.conf")
