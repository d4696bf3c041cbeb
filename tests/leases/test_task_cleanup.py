"""Cleanup release at the end of a task of django.tasks."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
from django.test import override_settings

from django_distlock.leases import cleanup
from tests.support.databases import committed, on_each_database
from tests.support.holders import acquire
from tests.support.leaving_views import (
    LEFT,
    let_view,
    names,
    views_work,
)

pytestmark = committed


@on_each_database
def test_task_leaves_no_lock_behind(alias: str) -> None:
    """It keeps its caller's leases."""
    lease = acquire(alias, "caller's")
    let_view(lambda: acquire(alias))
    with override_settings(TASKS={"default": {"BACKEND": IMMEDIATE}}):
        with pytest.warns(ResourceWarning, match=LEFT):
            results = enqueue_task()
    assert [result.errors for result in results] == [[]] * len(results)
    assert names(alias) == ["caller's"]
    assert lease.release()


IMMEDIATE = "django.tasks.backends.immediate.ImmediateBackend"
tasks: Any = import_module("django.tasks") if find_spec("django.tasks") else None


def enqueue_task() -> list[Any]:
    """Run it, and return its result; without django.tasks, call the signals' receivers."""
    by_hand = (cleanup.start, run_task, cleanup.finish)
    return [tasks.task(run_task).enqueue()] if tasks else [call() for call in by_hand][:0]


def run_task() -> None:
    """Run the test's code."""
    views_work[-1]()
