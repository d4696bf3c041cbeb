"""docs/reference/signals.md has the arguments of each signal, and no others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from django_distlock import LockBackendUnavailable, acquire_lock, signals
from django_distlock.signals import ReentrantSignal
from django_distlock.test import store_down
from tests.support.documentation import DOCUMENTS
from tests.support.holders import acquire, take_away

if TYPE_CHECKING:
    from tests.support.signals import SentSignals

pytestmark = pytest.mark.once

ROWS = dict(
    re.findall(
        r"^\| `(lock_\w+)` \| (.+?) \| .+ \|$",
        (DOCUMENTS / "reference/signals.md").read_text("utf-8"),
        re.MULTILINE,
    )
)


def test_each_signal_is_documented() -> None:
    """And nothing else is."""
    sent = [name for name, each in vars(signals).items() if isinstance(each, ReentrantSignal)]
    assert [*ROWS] == sent


def test_arguments_are_documented(signals_sent: SentSignals) -> None:
    """All of them."""
    acquire("memory").release()
    with store_down("memory"), pytest.raises(LockBackendUnavailable):
        acquire("memory")
    lease = acquire("memory")
    assert acquire_lock("1234collectPayment", backend="memory") is None
    take_away(lease)
    assert not lease.release()
    found = {
        f"lock_{name}": {*arguments} - {"signal", "sender"} for name, arguments in signals_sent.all
    }
    assert found == {name: {*re.findall(r"`(\w+)`", cell)} for name, cell in ROWS.items()}
