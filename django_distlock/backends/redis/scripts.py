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

    __slots__ = ("digest", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = sha1(source.encode(), usedforsecurity=False).hexdigest()


class Call(NamedTuple):
    """A script with its keys, all of one slot, and its arguments."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Any]

    def command(self, *, whole: bool = False) -> tuple[Any, ...]:
        """Return the command; `whole`, for a server that may not have seen the script."""
        script, keys, arguments = self
        if whole:
            return "EVAL", script.source, len(keys), *keys, *arguments
        return "EVALSHA", script.digest, len(keys), *keys, *arguments


INCLUDE = re.compile("^-- include (.+)\n", re.MULTILINE)


def _read(name: str) -> str:
    text = (files(__package__) / "lua" / name).read_text("utf-8")
    return INCLUDE.sub(lambda line: _read(line[1]), text)


ACQUIRE, RELEASE, RENEW, FORCE_RELEASE, JOIN, LOOK, LEAVE = (
    Script(_read(f"{name}.lua"))
    for name in ("acquire", "release", "renew", "force_release", "join", "look", "leave")
)
