"""Arguments that are right, if strange. What is wrong of them is in tests/bad_input."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import pytest
from django.utils.translation import gettext_lazy

from django_distlock import (
    aacquire_lock,
    acquire_lock,
    distributed_lock,
)
from tests.support.entries import LONG, NAME

pytestmark = pytest.mark.usefixtures("in_memory")


LAZY: Any = gettext_lazy("export")


def test_int_has_more_digits_than_python_shows() -> None:
    """Otherwise the tests would prove nothing."""
    with pytest.raises(ValueError, match="digits"):
        repr(LONG)


# Labels


@pytest.mark.parametrize("label", ["", "x" * 200, "\U0001f512" * 200])
def test_label_may_have_200_characters(label: str) -> None:
    """Characters of any kind."""
    with distributed_lock(NAME, label=label) as lease:
        assert lease.holder.startswith(label)


def test_holder_is_short_even_with_a_long_thread_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store keeps the text that describes the holder, too."""
    with monkeypatch.context() as patch:
        patch.setattr(threading.current_thread(), "name", "x" * 10_000_000)
        with distributed_lock(NAME) as lease:
            assert len(lease.holder) < 600
    with distributed_lock(NAME, label="\0" * 200) as lease:
        assert len(lease.holder) < 1_000


@pytest.mark.parametrize("entry", [acquire_lock, aacquire_lock, distributed_lock])
def test_signatures_have_the_documented_arguments(entry: Any) -> None:
    """The semaphore is required, the others have defaults, and no others are accepted."""
    parameters = inspect.signature(entry).parameters
    assert [name for name in parameters if parameters[name].default is inspect.Parameter.empty] == [
        "semaphore",
        "unknown",
    ]
    assert "Never" in str(parameters["unknown"].annotation)
    assert {"timeout", "ttl", "renew", "label", "backend"} < {*parameters}
