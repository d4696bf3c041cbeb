"""Default labels: the name of the code that acquires a lock, for people who list held locks."""

import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import MethodType
from typing import Any, Final

from django_distlock.arguments import LONGEST_LABEL
from django_distlock.leases.registry import LeaseRegistry
from django_distlock.semaphores.signatures import bound_for_a_call

COMMANDS: Final = ".management.commands."


def label_of(function: Callable[..., Any]) -> str:
    """Return the name of a decorated function, with its module; of a command, the command's."""
    module, name = _name_of(function)
    if COMMANDS in module:
        return bounded(module.rpartition(".")[2])
    return bounded(f"{module}.{name}" if module else name)


def _name_of(function: Callable[..., Any]) -> tuple[str, str]:
    """Return the module and the name of the function that is called in the end.

    A bound method is named by the class of its object: `View.dispatch` would name every view.
    """
    called: Any = bound_for_a_call(function) or function
    while isinstance(called, partial):
        called = called.func
    if isinstance(called, MethodType):
        bound_to: Any = called.__self__
        owner = bound_to if isinstance(bound_to, type) else type(bound_to)
        name = getattr(called, "__name__", type(called.__func__).__name__)
        return owner.__module__, f"{owner.__qualname__}.{name}"
    name = getattr(called, "__qualname__", None) or type(called).__qualname__
    return getattr(called, "__module__", None) or "", name


def running_label(registry: LeaseRegistry, function: str = "") -> str:
    """Return the name of the task that the registry's thread is in, or else of the function.

    Without either, it is the command's. A request has none: Django doesn't say which view it calls.
    """
    running = registry.running_name()
    if running or function:
        return bounded(running or function)
    return command_label() if running is None else ""


@cache
def command_label() -> str:
    """Return the name of the command that manage.py or django-admin runs in this process."""
    script, command = Path(sys.argv[0] if sys.argv else ""), "".join(sys.argv[1:2])
    is_main = script.parts[-2:] == ("django", "__main__.py")
    if command.startswith("-") or not (is_main or script.stem in {"manage", "django-admin"}):
        return ""
    return bounded(command)


def bounded(label: str) -> str:
    """Return the label, or its end, which tells more than its beginning, if it is too long."""
    return label if len(label) <= LONGEST_LABEL else f"…{label[1 - LONGEST_LABEL :]}"
