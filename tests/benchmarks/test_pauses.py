"""What `benchmarks.pauses` counts: updates that a paused holder overwrites."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from django.db import connection

from benchmarks.register import BARE, FENCED, WRITES, Register
from django_distlock import LockLost, acquire_lock, distributed_lock
from django_distlock.test import expire
from tests.support.databases import committed

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [committed, pytest.mark.once]


@pytest.fixture
def register() -> Iterator[Register]:
    """Return a register whose number is 0."""
    with connection.schema_editor() as editor:
        editor.create_model(Register)
    yield Register.objects.create(name="register")
    with connection.schema_editor() as editor:
        editor.delete_model(Register)


@pytest.mark.parametrize(("protection", "lost"), [(BARE, 1), (FENCED, 0)])
def test_only_an_unfenced_write_overwrites_what_was_written_in_its_pause(
    register: Register, protection: str, lost: int
) -> None:
    """A paused holder that continues after its lease loses the update of its successor."""
    write, written = WRITES[protection], 0

    def pause() -> None:
        nonlocal written
        expire(lease, noticed=False)
        successor = acquire_lock(register.name)
        assert successor
        write(register.name, successor, lambda: None)
        written += 1
        assert successor.release()

    with suppress(LockLost), distributed_lock(register.name) as lease:
        write(register.name, lease, pause)
        written += 1
    register.refresh_from_db()
    assert written - register.number == lost
