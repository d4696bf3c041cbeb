"""docs/reference/protocol.md describes the lock server's protocol, with a real conversation."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from django_distlock.server import handshake
from django_distlock.server.connection import Connection
from django_distlock.server.errors import RequestError
from django_distlock.server.limits import Limits
from django_distlock.server.requests import ACTIONS
from django_distlock.server.service import Service
from django_distlock.server.table import LockTable
from tests.support.concurrency import run
from tests.support.ports import HOST

if TYPE_CHECKING:
    import pytest

from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "reference" / "protocol.md"
SECRET = b"correct horse battery staple"
BEGAN = 1_790_000_000_000_000
"""The server's time in the example, in microseconds. Each look at it finds a millisecond more."""


def example() -> list[str]:
    """Return the lines of the page's example."""
    text = PAGE.read_text("utf-8").partition("## An example")[2]
    return text.split("```\n")[1].splitlines()


class Clocks:
    """Clocks that advance by a millisecond whenever the wall clock is read."""

    def __init__(self) -> None:
        self.milliseconds = 0

    def monotonic(self) -> float:
        return self.milliseconds / 1000

    def microseconds(self) -> int:
        self.milliseconds += 1
        return BEGAN + 1000 * self.milliseconds


async def replay(lines: list[str]) -> list[str]:
    """Send the client's lines, and return all lines with the server's answers."""
    clocks = Clocks()
    table = LockTable(monotonic=clocks.monotonic, microseconds=clocks.microseconds)
    served = Service(table, SECRET, Limits())
    server = await asyncio.get_running_loop().create_server(partial(Connection, served), HOST, 0)
    _, port = server.sockets[0].getsockname()
    ends: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
    said = []
    for line in lines:
        name, direction = line[0], line[1]
        if name not in ends:
            ends[name] = await asyncio.open_connection(HOST, port)
        reader, writer = ends[name]
        if direction == ">":
            writer.write(line[3:].encode() + b"\n")
            said.append(line)
        else:
            answer = await asyncio.wait_for(reader.readline(), 30)
            said.append(f"{name}< {answer.decode()}".rstrip("\n"))
    server.close()
    served.stop()
    for _, writer in ends.values():
        writer.close()
        await writer.wait_closed()
    await served.admission.wait_closed()
    return said


def test_example_is_the_conversation_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that follows the page works."""
    lines = example()
    challenges = iter(re.findall('challenge":"([0-9a-f]+)', "\n".join(lines)))
    monkeypatch.setattr(handshake, "new_nonce", lambda: next(challenges))
    assert run(replay(lines)) == lines


def test_page_has_every_request_and_every_error() -> None:
    """And no other."""
    text = PAGE.read_text("utf-8")
    requests = text.partition("## Requests")[2].partition("## Waiting")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", requests, re.MULTILINE)) == {"do", *ACTIONS}
    sources = Path(handshake.__file__).parent.glob("*.py")
    source = "".join(path.read_text("utf-8") for path in sources)
    call = r"(?:HandshakeFailed|_last_message|\.end|\.drop)\(|STOPPING: Final = \("
    sent = set(re.findall(rf'(?:{call})\s*"(\w+)"', source))
    sent |= {each.code for each in RequestError.__subclasses__()}
    codes = text.partition("| code |")[2].partition("\n\n")[0]
    named = re.findall(r"^\| (`.+?) \|", codes, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(named))) == sent
