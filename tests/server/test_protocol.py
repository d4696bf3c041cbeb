"""docs/reference/protocol.md describes the lock server's protocol, with a real conversation."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from django_distlock.server import handshake, operator_requests
from django_distlock.server.connection import Connection
from django_distlock.server.errors import RequestError
from django_distlock.server.limits import Limits
from django_distlock.server.requests import ACTIONS
from django_distlock.server.service import Service
from django_distlock.server.table import LockTable
from tests.support.concurrency import run
from tests.support.documentation import blocks, section
from tests.support.ports import HOST

if TYPE_CHECKING:
    import pytest

SOURCES = [*Path(handshake.__file__).parent.glob("*.py")]
SECRET = b"correct horse battery staple"
BEGAN = 1_790_000_000_000_000
"""The server's time in the example, in microseconds. Each look at it finds a millisecond more."""


def example() -> list[str]:
    """Return the lines of the page's example."""
    [conversation] = blocks(section("reference/protocol.md", "An example"), "text")
    return conversation.splitlines()


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


def test_page_has_every_error() -> None:
    """And no other."""
    source = "".join(path.read_text("utf-8") for path in SOURCES)
    call = r"(?:HandshakeFailed|_last_message|\.end|\.drop)\(|STOPPING: Final = \("
    sent = set(re.findall(rf'(?:{call})\s*"(\w+)"', source))
    sent |= {each.code for each in RequestError.__subclasses__()}
    codes = section("reference/protocol.md", "Errors").partition("| code |")[2]
    named = re.findall(r"^\| (`.+?) \|", codes, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(named))) == sent


def test_page_has_every_request_and_member() -> None:
    """And no others. A table has the members of a request, or a sentence that begins with them."""
    requests = section("reference/protocol.md", "Requests")
    assert re.findall(r"^### (\w+)$", requests, re.MULTILINE) == [
        *("acquire", "renew", "release", "join", "leave"),
        *(name for name in ACTIONS if name in operator_requests.ACTIONS and name != "status"),
        *("ping", "status"),
    ]
    tables = re.findall(r"^\| member \|.*?\n\n", requests, re.MULTILINE | re.DOTALL)
    cells = [row.split(" | ")[0] for table in tables for row in table.splitlines()]
    cells += re.findall(r"^With .*?[.:]", requests, re.MULTILINE | re.DOTALL)
    documented = set(re.findall(r"`(\w+)`", "".join(cells)))
    read = "".join(path.read_text("utf-8") for path in SOURCES if "request" in path.name)
    members = set(re.findall(r'request\.get\("(\w+)"|_of\(\s*request, "(\w+)"', read))
    assert documented == {name for pair in members for name in pair if name} - {"do"}
