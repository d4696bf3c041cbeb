"""with_lock at a terminal: Ctrl-C, Ctrl-Z, and who may read."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from typing import Self

import pytest

from tests.support.children import tied
from tests.support.databases import committed
from tests.support.with_lock import NAME, environment, settings_of

pytestmark = [pytest.mark.once, committed]

WITH_LOCK = [sys.executable, "-m", "django", "with_lock", NAME, "--"]


class Terminal:
    """A terminal with a process that leads its session, as in a container or a window."""

    def __init__(self, *command: str) -> None:
        self._ours, theirs = os.openpty()
        self._seen = ""
        self.process = subprocess.Popen(
            tied(["setsid", "--ctty", *command]),
            env=environment(settings_of("default")) | {"PS1": "prompt> ", "TERM": "dumb"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def type(self, text: str) -> None:
        """Send what a user types."""
        os.write(self._ours, text.encode())

    def until(self, text: str) -> str:
        """Return what is shown up to this text."""
        while text not in self._seen:
            assert select.select([self._ours], [], [], 60)[0], self._seen
            self._seen += os.read(self._ours, 4096).decode()
        shown, _, self._seen = self._seen.partition(text)
        return shown


COUNTING = """
trap 'n=$((n + 1)); echo "INT $n"' INT
echo ready
until [ "$n" = 1 ]; do sleep 0.02; done
read line
echo "got $line"
until [ "$n" = 2 ]; do sleep 0.02; done
exit 5
"""


def test_ctrl_c_reaches_the_command_once() -> None:
    """Before and after it has read from the terminal, which with_lock gives it for that."""
    with Terminal(*WITH_LOCK, "sh", "-c", COUNTING) as terminal:
        terminal.until("ready")
        terminal.type("\x03")
        terminal.until("INT 1")
        terminal.type("hello\r")
        terminal.until("got hello")
        terminal.type("\x03")
        assert "INT" not in terminal.until("INT 2")
        assert terminal.process.wait(60) == 5


STOPS_ITSELF = """
import os, signal, termios
signal.signal(signal.SIGTTOU, lambda number, frame: os.kill(os.getpid(), signal.SIGSTOP))
while True:
    try:
        termios.tcsetattr(0, termios.TCSADRAIN, termios.tcgetattr(0))
    except termios.error:
        continue
    break
print("drawn")
"""


def test_command_that_stops_itself_for_want_of_the_terminal_gets_it() -> None:
    """As `top` does, which handles the signal that would stop it."""
    with Terminal(*WITH_LOCK, sys.executable, "-c", STOPS_ITSELF) as terminal:
        terminal.until("drawn")
        assert terminal.process.wait(60) == 0


def test_ctrl_z_suspends_and_fg_continues() -> None:
    """The shell sees one job; afterwards it has the terminal again."""
    with Terminal("bash", "--norc", "--noprofile", "--noediting", "-i") as terminal:
        terminal.until("prompt> ")
        terminal.type(f"{' '.join(WITH_LOCK)} cat\r")
        terminal.type("hello\r")
        terminal.until("hello\r\nhello\r\n")
        terminal.type("\x1a")
        assert "Stopped" in terminal.until("prompt> ")
        terminal.type("fg\r")
        terminal.until("-- cat\r\n")
        terminal.type("again\r")
        terminal.until("again\r\nagain\r\n")
        terminal.type("\x04")
        terminal.until("prompt> ")
        terminal.type("echo code $?\r")
        terminal.until("code 0")


def test_ctrl_z_where_nobody_could_continue_it_does_nothing() -> None:
    """As in a container, whose first process it is."""
    with Terminal(*WITH_LOCK, "cat") as terminal:
        terminal.type("hello\r")
        terminal.until("hello\r\nhello\r\n")
        terminal.type("\x1a")
        terminal.type("again\r")
        terminal.until("again\r\nagain\r\n")
        terminal.type("\x04")
        assert terminal.process.wait(60) == 0
