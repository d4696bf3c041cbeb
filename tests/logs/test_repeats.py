"""Lines that are alike: one a second, then one that says how many others there were."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from django_distlock import logs
from django_distlock.threads import NoThread
from tests.support.concurrency import until

if TYPE_CHECKING:
    from tests.support.moved_clock import MovedClock

logger = logs.room_logger("leases")


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[threading.Timer]:
    """Collect the timers that would write what was left out, for the test to call."""
    started: list[threading.Timer] = []
    monkeypatch.setattr(logs, "start_daemon", started.append)
    return started


def lose(number: int, reason: str = "its ttl has passed") -> None:
    """Log a loss."""
    fields = {"semaphore": f"s{number}", "reason": reason}
    logger.warning("%r was lost: %s.", f"s{number}", reason, extra=fields)


def test_thousand_lines_of_fifty_threads_become_two(
    timers: list[threading.Timer], moved_clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The second has the number of the others, the names of some, and the true reason."""
    moved_clock.stop()

    def lose_twenty(thread: int) -> None:
        for number in range(20):
            lose(20 * thread + number)

    threads = [threading.Thread(target=lose_twenty, args=[number]) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [timer] = timers
    assert timer.interval == logs.INTERVAL
    timer.function()
    first, last = caplog.records
    assert first.getMessage().endswith("was lost: its ttl has passed.")
    assert "was lost: its ttl has passed. (998 more lines like this were left out: 's" in (
        last.getMessage()
    )
    assert last.getMessage().count("'s") in {logs.MOST_NAMES, logs.MOST_NAMES + 1}
    assert vars(last)["left_out"] == 998
    assert vars(last)["reason"] == "its ttl has passed"


def test_two_lines_lose_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The second is only late; a thread writes it."""
    monkeypatch.setattr(logs, "INTERVAL", 0.02)
    lose(1)
    lose(2)
    until(lambda: len(caplog.records) == 2)
    assert caplog.messages == [f"'s{number}' was lost: its ttl has passed." for number in (1, 2)]


@pytest.mark.usefixtures("stopped_clock")
def test_flood_that_goes_on_is_a_line_a_second(
    timers: list[threading.Timer], caplog: pytest.LogCaptureFixture
) -> None:
    """Each has the number of those since the last one."""
    lose(0)
    for _ in range(3):
        lose(1)
        lose(2)
        timers.pop().function()
        assert timers == []
    assert [vars(each).get("left_out") for each in caplog.records] == [None, 1, 1, 1]


def test_other_texts_reasons_and_levels_are_other_lines(caplog: pytest.LogCaptureFixture) -> None:
    """They say something else."""
    for _ in range(3):
        lose(1)
        lose(1, "it was taken away")
        logger.warning("%s could not be released.", "a")
        logger.error("%s could not be released.", "a")
        logs.room_logger("locks").warning("%s could not be released.", "a")
    assert len(caplog.records) == 5


def test_reasons_that_are_never_the_same_do_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Such as reasons with a process or a time."""
    for number in range(100):
        lose(number, f"process {number} has it")
    assert len(caplog.records) == logs.MOST_REASONS + 1


def test_lines_below_a_warning_are_alike_if_they_are_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each grant has a line of its own."""
    caplog.set_level(logging.DEBUG, "django_distlock")
    for number in (1, 2, 1, 2):
        logger.debug("%s was granted.", number)
    assert caplog.messages == ["1 was granted.", "2 was granted."]


def test_line_after_the_second_is_written_at_once(
    moved_clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where no thread could write what was left out: it says so itself."""
    with mock.patch.object(logs, "start_daemon", side_effect=NoThread("no more threads")):
        lose(1)
        moved_clock.advance(2)
        lose(2)
        lose(3)
        lose(4)
        moved_clock.advance(2)
        lose(5)
    assert caplog.messages == [
        "'s1' was lost: its ttl has passed.",
        "'s2' was lost: its ttl has passed.",
        "'s5' was lost: its ttl has passed. (2 more lines like this were left out: 's3', 's4')",
    ]


def test_percent_sign_in_a_text_without_arguments(
    moved_clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It stands for itself."""
    for _ in range(3):
        logger.warning("100% of it")
    moved_clock.advance(2)
    logger.warning("100% of it")
    assert caplog.messages[-1] == "100% of it (2 more lines like this were left out)"


def test_end_of_the_process_writes_what_was_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody else would."""
    for number in range(5):
        lose(number)
    logs.end_repeats()
    assert caplog.messages[-1].endswith("(3 more lines like this were left out: 's1', 's2', 's3')")


@pytest.mark.once
def test_forked_child_writes_its_own_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its parent's are the parent's, and so is the thread that would write them.

    The child doesn't touch that: the thread may have locked its timer at the time of the fork.
    """
    cancel = mock.Mock()
    monkeypatch.setattr(threading.Timer, "cancel", cancel)
    lose(1)
    lose(2)
    end, other_end = os.pipe()
    if (child := os.fork()) == 0:
        with suppress(BaseException):
            caplog.clear()
            lose(3)
            os.write(other_end, f"{cancel.called} {caplog.messages}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(other_end)
    with open(end) as written:  # noqa: PTH123 - a pipe's end has no path
        assert written.read() == """False ["'s3' was lost: its ttl has passed."]"""
