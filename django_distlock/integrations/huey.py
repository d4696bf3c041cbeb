"""Huey: hooks that release the locks that tasks left behind."""

from typing import Any, Final

from django_distlock.leases.cleanup import finish, start

HOOK: Final = "django_distlock"
WITHOUT_POST_EXECUTE: Final = ("canceled", "interrupted")
"""The signals of tasks that end without Huey's post-execute hooks."""


def add_hooks(huey: Any) -> None:
    """In a task of this Huey, make the task's name the default label of locks.

    Locks that the task acquired and did not release are released when it has ended.
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
