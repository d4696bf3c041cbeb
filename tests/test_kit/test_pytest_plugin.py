"""The pytest plugin, and Django's own runner, in processes of their own."""

from __future__ import annotations

import os
import re
from pathlib import Path
from unittest import mock

import pytest

import django_distlock_pytest
from tests.support.pytest_runs import INI, PLUGINS, SETTINGS, run_pytest, run_python

for plugin in PLUGINS:
    pytest.importorskip(plugin)

pytestmark = pytest.mark.once
PROJECT = Path("tests/support/kit_project")


def test_tests_of_a_site_by_two_workers(tmp_path: Path) -> None:
    """Locks in memory, real stores, leaks, and the order of locks."""
    first, second = (f"{PROJECT}/{name}.py" for name in ("first_tests", "second_tests"))
    workers = ["-n2", "--dist=loadfile"]
    problems, output = run_pytest(tmp_path, "-c", INI, *workers, first, second, plugins=PLUGINS)
    assert len(problems) == 17, output
    failed = {name: problem for name, problem in problems.items() if problem}
    assert failed.keys() == {
        "test_leak",
        "test_leak_in_the_database",
        "test_opposite_order",
        "test_another_opposite_order_and_an_error",
    }
    leak = rf"'1234collectPayment' \(default\): acquired at {first}:\d+, in test_leak"
    assert re.search(leak, failed["test_leak"])
    assert re.search(leak, failed["test_leak_in_the_database"])
    order = failed["test_opposite_order"]
    assert "Possible deadlock: two locks are taken in opposite orders." in order
    assert f"B, then A, in {first}::test_opposite_order:" in order
    assert f"A, then B, in {first}::test_one_order:" in order
    assert re.search(rf"'A' at {first}:\d+, in test_opposite_order \(timeout=0\)", order)
    both = failed["test_another_opposite_order_and_an_error"]
    assert "ZeroDivisionError: of the fixture" in both
    assert "C, then B" in both


def test_nothing_is_imported_before_a_project_uses_locks(tmp_path: Path) -> None:
    """Neither the package nor Django; there may be no other plugin. The options work."""
    options = ["-c", os.devnull, "-odistlock_real_locks=true", "-odistlock_lock_order=warn"]
    problems, output = run_pytest(tmp_path, *options, f"{PROJECT}/tests_without_plugins.py")
    assert [*problems.values()] == 5 * [""], output
    assert output.count("LockOrderWarning: Possible deadlock") == 1


def test_tests_of_a_site_by_two_processes_of_django() -> None:
    """LockTestMixin and the decorators."""
    module = ".".join([*PROJECT.parts, "django_tests"])
    done = run_python("-m", "django", "test", module, "--parallel", "2", f"--settings={SETTINGS}")
    assert done.returncode == 0, done.stderr
    assert "Ran 3 tests" in done.stderr


def test_wrong_mode_is_refused() -> None:
    """With the modes that there are."""
    config = mock.Mock()
    config.getini.return_value = "maybe"
    with pytest.raises(pytest.UsageError, match="error, warn, off, not 'maybe'"):
        django_distlock_pytest.pytest_configure(config)
