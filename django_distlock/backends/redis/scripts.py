"""The Lua scripts, one for each action: Redis runs each as a whole, before anybody else's command.

They stand in lua/. One may include others, and what it needs rarely it includes late: the server
makes their functions anew in each run.
"""

import re
from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple


class Script:
    """What Redis runs: known to it by the digest, once it has seen the source."""

    __slots__ = ("digest", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = sha1(source.encode(), usedforsecurity=False).hexdigest()


class Call(NamedTuple):
    """A script with what it is given: keys of one slot, and arguments."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Any]

    def command(self, *, whole: bool = False) -> tuple[Any, ...]:
        """Return what to send: `whole` to a server that may not have seen the script."""
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
