"""Consumers of Channels that use locks: the documented one, and others."""

import asyncio
from typing import Any

import django
from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.apps import apps
from django.urls import path

from django_distlock import aacquire_lock, acquire_lock, distributed_lock, release_lock
from django_distlock.integrations.channels import ReleaseLocks
from tests.support.documentation import example

if not apps.ready:
    django.setup()  # this is a server's process

PAGE = "integrations/channels.md"
documented = example(PAGE, "Channels")


class SyncEditor(JsonWebsocketConsumer):  # type: ignore[misc]
    """As the documented consumer, in threads."""

    def connect(self) -> None:
        """Accept the first connection only."""
        self.document = self.scope["url_route"]["kwargs"]["document"]
        self.accept()
        self.lease = acquire_lock(f"{self.document}:edit")
        if self.lease is None:
            self.close(code=4409)

    def disconnect(self, code: int) -> None:
        """Release by name."""
        if self.lease is not None:
            release_lock(f"{self.document}:edit")

    def busy(self, content: Any) -> None:
        """Refuse a message."""
        self.send_json({"error": "busy"})

    @distributed_lock("<str:self.document>:prices", on_conflict=busy)
    def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Answer under a lock."""
        self.send_json({"price": content["count"] * 5})


class Leaving(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
    """A consumer that does not end in the usual way, and leaves a lock behind."""

    async def connect(self) -> None:
        """Wait for a lock, and say when it is granted."""
        await self.accept()
        self.lease = await aacquire_lock("left", timeout=60, ttl=600)
        await self.send_json({"granted": self.lease is not None})

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Fail, or hang under another lock until the server cancels this."""
        if content == "fail":
            raise RuntimeError("failed")
        async with distributed_lock("hanging"):
            await self.send_json("hanging")
            await asyncio.Event().wait()


class Member(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
    """A consumer that gets the messages of a group."""

    groups = ["everybody"]

    @property
    def member(self) -> str:
        """Whose connection it is."""
        return str(self.scope["query_string"].decode())

    async def skip_news(self, event: Any) -> None:
        """Tell that a group's message is not handled."""
        await self.send_json("skipped")

    @distributed_lock("<str:self.member>:news", on_conflict=skip_news)
    async def news(self, event: Any) -> None:
        """Handle a group's message."""
        await self.send_json(event["text"])


routes = URLRouter(
    [
        path("edit/<slug:document>/", documented.Editor.as_asgi()),
        path("sync/<slug:document>/", SyncEditor.as_asgi()),
        path("leaving/", Leaving.as_asgi()),
        path("member/", Member.as_asgi()),
    ]
)
application = ProtocolTypeRouter({"websocket": ReleaseLocks(routes)})
