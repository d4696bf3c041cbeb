"""The Lua scripts, one for each action; Redis runs a script without any command in between.

They are in lua/, and may include one another. A script includes rarely needed functions late: the
server creates them again in each run.
"""

import re
from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple


class Script:
    """A script; once the server has seen its source, the digest is enough to run it."""

    __slots__ = ("digest", "reads_pauses", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.reads_pauses = "KEYS[4]" in source
        """Whether its last key is that of the pauses, which a cluster has in another slot."""
        self.digest = sha1(source.encode(), usedforsecurity=False).hexdigest()


class Call(NamedTuple):
    """A script with its keys, all of one slot but that of the pauses, and its arguments."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Any]

    def command(self, *, whole: bool = False, in_one_slot: bool = False) -> tuple[Any, ...]:
        """Return the command; `whole`, for a server that may not have seen the script.

        `in_one_slot` leaves out the pauses, for a server that takes only keys of one slot.
        """
        script, keys, arguments = self
        if in_one_slot and script.reads_pauses:
            keys = keys[:-1]
        if whole:
            return "EVAL", script.source, len(keys), *keys, *arguments
        return "EVALSHA", script.digest, len(keys), *keys, *arguments


INCLUDE = re.compile("^-- include (.+)\n", re.MULTILINE)


def _read(name: str) -> str:
    text = (files(__package__) / "lua" / name).read_text("utf-8")
    return INCLUDE.sub(lambda line: _read(line[1]), text)


ACQUIRE, RELEASE, RENEW, JOIN, LOOK, LEAVE = (
    Script(_read(f"{name}.lua"))
    for name in ("acquire", "release", "renew", "join", "look", "leave")
)
FORCE_RELEASE, SCAN, DESCRIBE, WAITERS, PAUSE, RESUME, PAUSES = (
    Script(_read(f"{name}.lua"))
    for name in ("force_release", "scan", "describe", "waiters", "pause", "resume", "pauses")
)
