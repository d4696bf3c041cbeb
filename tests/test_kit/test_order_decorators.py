"""`consistent_lock_order` around blocks, functions and test cases, and the names of tests."""

from __future__ import annotations

import unittest

import pytest

from django_distlock.test import consistent_lock_order
from tests.support.taken_locks import take

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("in_memory", "new_orders")]


def test_it_is_a_context_manager_and_a_decorator() -> None:
    """The error names the tests; under another error it is a note to that."""

    @consistent_lock_order()
    def opposite() -> None:
        take("B", "A")()

    @consistent_lock_order()
    class Tests(unittest.TestCase):
        def test_order(self) -> None:
            take("B", "C")()

    with consistent_lock_order():
        take("A", "B")()
    with pytest.raises(AssertionError, match=r"A, then B, in \S*test_it_is_a_context"):
        opposite()
    result = unittest.TestResult()
    Tests("test_order").run(result)
    assert result.wasSuccessful()
    with pytest.raises(ZeroDivisionError) as raised, consistent_lock_order():
        take("C", "A")()
        1 / 0  # noqa: B018
    assert "C, then A" in raised.value.__notes__[0]


def test_a_block_in_another_one_reports_first() -> None:
    """As LockTestMixin under pytest; the outer one watches on."""
    with pytest.raises(AssertionError, match="C, then A") as raised, consistent_lock_order():
        with pytest.raises(AssertionError, match="B, then A"), consistent_lock_order():
            take("A", "B", "C")()
            take("B", "A")()
        take("C", "A")()
    assert "B, then A" not in str(raised.value)


def test_names_of_tests_without_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test's id, a function's name, or the line of a block."""
    monkeypatch.delenv("PYTEST_CURRENT_TEST")

    @consistent_lock_order()
    class Tests(unittest.TestCase):
        def test_order(self) -> None:
            take("A", "B")()

    @consistent_lock_order()
    def function() -> None:
        take("B", "C")()

    Tests("test_order").run()
    function()
    with pytest.raises(AssertionError) as raised, consistent_lock_order():
        take("C", "A")()
    names = [
        line.rpartition(", in ")[2] for line in str(raised.value).splitlines() if "then" in line
    ]
    test = test_names_of_tests_without_pytest.__name__
    assert names[0] == f"{test}:"
    assert names[1].endswith(".Tests.test_order:")
    assert names[2] == f"{__name__}.{test}.<locals>.function:"
