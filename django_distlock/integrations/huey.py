"""Huey: hooks that release the locks that tasks left behind."""

from typing import Any, Final

from django_distlock.leases.cleanup import finish, start

__all__ = ["add_hooks"]

HOOK: Final = "django_distlock"
WITHOUT_POST_EXECUTE: Final = ("canceled", "interrupted")
"""The signals of tasks that end without Huey's post-execute hooks."""


def add_hooks(huey: Any) -> None:
    """Add hooks to this Huey that release the locks that a task still holds at its end.

    In a task, its name is the default label of locks.
    """
    huey.pre_execute(HOOK)(_start)
    huey.post_execute(HOOK)(_finish)
    huey.signal(*WITHOUT_POST_EXECUTE)(_finish_early)


def _start(task: Any) -> None:
    start(f"{type(task).__module__}.{task.name}", task.id)


def _finish(task: Any, value: object, error: BaseException | None) -> None:
    finish(task.id)


def _finish_early(signal: str, task: Any, *args: object) -> None:
    finish(task.id)
