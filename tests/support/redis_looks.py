"""A Redis server's answers to looks at a queue, set by a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_distlock.backends.redis import scripts
from django_distlock.backends.redis.nodes import Node
from tests.support.redis_stores import (
    name_of,
)

if TYPE_CHECKING:
    import pytest

    from django_distlock.backends.sockets.connections import ServerError


def say_when_looked_at(monkeypatch: pytest.MonkeyPatch, answer: ServerError) -> None:
    """Make the server answer this for each queue that is looked at."""
    ask_all = Node.ask_all

    def ask(node: Node, requests: Any, *arguments: Any) -> list[Any]:
        if name_of(requests[0]) == scripts.LOOK.digest:
            return [answer] * len(requests)
        return ask_all(node, requests, *arguments)

    monkeypatch.setattr(Node, "ask_all", ask)
