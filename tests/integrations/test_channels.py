"""Locks in the consumers of Channels, as docs/integrations/channels.md shows them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from django_distlock import acquire_lock
from django_distlock.test import override_locks
from tests.support.children import tied
from tests.support.concurrency import run, until
from tests.support.leaving_views import about_leases, names
from tests.support.paths import ROOT
from tests.support.processes import worker_environment
from tests.support.websockets import WebSocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytest.importorskip("channels")

from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator

from tests.support import consumers

pytestmark = pytest.mark.once
on_each_editor = pytest.mark.parametrize("editor", ["/edit/report/", "/sync/report/"])


@pytest.fixture(autouse=True)
def locks_in_memory() -> Iterator[None]:
    """Keep the locks in memory, since the documented consumer uses the default store."""
    with override_locks():
        yield


@asynccontextmanager
async def connected(path: str, application: Any = consumers.application) -> AsyncIterator[Any]:
    """Connect to a consumer."""
    client = WebsocketCommunicator(application, path)
    accepted, _ = await client.connect(60)
    assert accepted
    yield client
    await client.disconnect(timeout=60)


async def price(client: Any) -> Any:
    """Send a message, and return the answer."""
    await client.send_json_to({"count": 3})
    return await client.receive_json_from(60)


@on_each_editor
def test_lock_is_held_for_the_life_of_a_connection(editor: str) -> None:
    """Whether or not the consumer's methods run in threads: the lock is its task's."""

    async def edit() -> None:
        for _ in range(2):
            async with connected(editor) as client:
                assert await price(client) == {"price": 15}
                async with connected(editor) as second:
                    refusal = await second.receive_output(60)
                assert refusal == {"type": "websocket.close", "code": 4409}
                assert names("default") == ["report:edit"]
            assert names("default") == []

    run(edit())


@on_each_editor
def test_message_is_handled_under_a_lock_or_refused(editor: str) -> None:
    """Here it is held by another process."""
    lease = acquire_lock("report:prices")
    assert lease is not None

    async def calculate() -> list[Any]:
        async with connected(editor) as client:
            refusal = await price(client)
            await lease.arelease()
            return [refusal, await price(client)]

    assert run(calculate()) == [{"error": "busy"}, {"price": 15}]
    assert names("default") == []


def test_message_to_a_group_is_handled_under_a_lock_or_skipped() -> None:
    """Each of the consumers has a lock of its own here; one is held elsewhere."""
    assert acquire_lock("busy:news")

    async def tell() -> list[Any]:
        async with connected("/member/?free") as free, connected("/member/?busy") as busy:
            await get_channel_layer().group_send("everybody", {"type": "news", "text": "new"})
            return [await client.receive_json_from(60) for client in (free, busy)]

    layers = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with override_settings(CHANNEL_LAYERS=layers):
        assert run(tell()) == ["new", "skipped"]


def test_lock_that_a_failed_consumer_leaves_behind_is_released() -> None:
    """Channels doesn't call disconnect() then."""

    async def fail() -> None:
        client = WebsocketCommunicator(consumers.application, "/leaving/")
        await client.connect(60)
        await client.send_json_to("fail")
        with pytest.raises(RuntimeError, match="failed"):
            await client.wait(60)

    with pytest.warns(ResourceWarning, match="'left' was not released by") as caught:
        run(fail())
    assert len(about_leases(caught)) == 1
    assert names("default") == []


def test_locks_of_a_cancelled_consumer_are_released() -> None:
    """Those of blocks, too."""

    async def cancel() -> None:
        client = WebsocketCommunicator(consumers.application, "/leaving/")
        await client.connect(60)
        await client.receive_json_from(60)
        await client.send_json_to("hang")
        assert await client.receive_json_from(60) == "hanging"
        assert names("default") == ["hanging", "left"]
        client.future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client.future
        assert names("default") == []

    with pytest.warns(ResourceWarning, match="'left' was not released by"):
        run(cancel())


@contextmanager
def served(log: Path, port: int) -> Iterator[None]:
    """Run the consumers under Daphne, which gives one that is to end a second."""
    command = [sys.executable, "-m", "daphne", "--port", str(port), "--verbosity=0"]
    command += ["--application-close-timeout=1", "tests.support.consumers:application"]
    settings = {"DJANGO_SETTINGS_MODULE": "tests.support.memory_settings"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            tied(command),
            cwd=ROOT,
            env=worker_environment() | settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:

        def listens() -> bool:
            assert process.poll() is None, log.read_text()
            with suppress(ConnectionRefusedError), WebSocket(port, "/edit/warm-up/"):
                return True
            return False

        until(listens)
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 0, log.read_text()


def test_locks_of_connections_to_a_real_server(unused_port: int, tmp_path: Path) -> None:
    """A client that vanishes, and a consumer that Daphne cancels, leave nothing behind."""
    with served(tmp_path / "log", unused_port):
        with WebSocket(unused_port, "/edit/report/") as first:
            first.send({"count": 3})
            assert first.receive() == {"price": 15}
            with WebSocket(unused_port, "/edit/report/") as second:
                assert second.receive() == 4409

        def is_free() -> bool:
            with WebSocket(unused_port, "/edit/report/") as third:
                third.send({"count": 3})
                return bool(third.receive() != 4409)

        until(is_free)
        with WebSocket(unused_port, "/leaving/") as hanging:
            assert hanging.receive() == {"granted": True}
            hanging.send("hang")
            assert hanging.receive() == "hanging"
        with WebSocket(unused_port, "/leaving/") as waiting:
            assert waiting.receive() == {"granted": True}
    assert "took too long to shut down and was killed" in (tmp_path / "log").read_text()
