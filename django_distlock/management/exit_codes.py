"""The exit codes of the commands for locks."""

from enum import IntEnum

from django.core.management.base import CommandError


class ExitCode(IntEnum):
    """How a command ended, for scripts."""

    DONE = 0
    ERROR = 1
    """It failed, or there was nothing to do: the message on stderr says which."""
    USAGE = 2
    """The arguments are wrong, and nothing was tried; argparse uses this code, too."""
    CONTENDED = 75
    """Another holder has the lock. EX_TEMPFAIL of sysexits.h: a later try may succeed."""
    LOST = 76
    """The lock was lost while the command of with_lock ran, which was stopped for that."""
    NOT_EXECUTABLE = 126
    """The command of with_lock can't be executed. As shells report it."""
    NOT_FOUND = 127
    """There is no such command. As shells report it."""
    INTERRUPTED = 130
    """Ctrl-C, as shells report it: 128 + SIGINT."""


def usage_error(message: str) -> CommandError:
    """Return the error of a command that was called the wrong way."""
    return CommandError(message, returncode=ExitCode.USAGE)
