"""Connections to Memcached for locks alone, by pymemcache.

Django's cache objects won't do: by default they wait forever, pickle, or answer for a dead server.
"""

import atexit
import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from django.core.cache.backends.base import BaseCache

from django_distlock import clocks
from django_distlock.records import Owner

MAX_TRIES: Final = 10
"""How often to read an entry again that keeps changing."""
KEPT_CHANGING: Final = f"the entry changed, or was gone, {MAX_TRIES} times in between"

MAX_IDLE: Final = 8
"""Connections that a process keeps for its next calls. More may be in use."""


class Entry(NamedTuple):
    """What a key stores: its owner, and the number by which this very entry can be replaced."""

    owner: str
    cas: Any


class Client:
    """A connection to one server, by pymemcache.

    Calls raise one of the `errors`; after that the client can't be used any more.
    """

    options = ("socket_keepalive", "socket_module", "tls_context")
    """The cache's OPTIONS that say how to reach the server. No other one counts."""

    def __init__(self, server: Any, options: dict[str, Any], seconds: float) -> None:
        """Connect at the first call. It may take so many seconds, and then wait for as many."""
        from pymemcache.client.base import Client
        from pymemcache.exceptions import MemcacheError, MemcacheUnexpectedCloseError

        self.errors: tuple[type[Exception], ...] = (OSError, MemcacheError)
        self._no_answers = (OSError, MemcacheUnexpectedCloseError)
        self._client = Client(
            server,
            connect_timeout=seconds,
            timeout=seconds,
            no_delay=True,
            **{name: options[name] for name in self.options if name in options},
        )

    def set_timeout(self, seconds: float) -> None:
        """Limit the time that the next call waits for the server."""
        # Before the first call there is no socket.
        if self._client.sock is not None:
            self._client.sock.settimeout(seconds)

    def add(self, key: bytes, owner: str, expiry: int) -> bool:
        """Store the owner unless there is an entry."""
        return bool(self._client.add(key, owner.encode(), expiry, noreply=False))

    def read(self, key: bytes) -> Entry | None:
        """Return the entry."""
        value, cas = self._client.gets(key)
        return None if value is None else Entry(Owner(value.decode(errors="replace")), cas)

    def replace(self, key: bytes, owner: str, cas: Any, expiry: int) -> bool:
        """Store the owner in place of the entry that was read, if that is still there."""
        return bool(self._client.cas(key, owner.encode(), cas, expiry, noreply=False))

    def is_refusal(self, error: Exception) -> bool:
        """Return whether the server answered that it did nothing."""
        return not isinstance(error, self._no_answers)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class Conversation:
    """The requests of one call on one connection, within the call's time."""

    def __init__(self, client: Client, deadline: float) -> None:
        self._client = client
        self.deadline = deadline
        self.unknown = False
        """Whether the server may have changed something without an answer."""

    def acquire(self, key: bytes, owner: str, expiry: int) -> bool:
        """Store the owner unless another one is stored; its own entry gets the new expiry."""
        for _ in range(MAX_TRIES):
            if self._change(self._client.add, key, owner, expiry):
                return True
            entry = self.read(key)
            if entry is None:
                continue  # it has expired, or was released, since
            if entry.owner != owner:
                return False
            if self._change(self._client.replace, key, owner, entry.cas, expiry):
                return True
        raise TimeoutError(KEPT_CHANGING)

    def replace(self, key: bytes, owner: str, new: str, expiry: int) -> bool:
        """Store another value in place of this owner's entry; False if it has none."""
        for _ in range(MAX_TRIES):
            entry = self.read(key)
            if entry is None or entry.owner != owner:
                return False
            if self._change(self._client.replace, key, new, entry.cas, expiry):
                return True
            # Another thread has renewed it, or it has expired.
        raise TimeoutError(KEPT_CHANGING)

    def read(self, key: bytes) -> Entry | None:
        """Return what is stored."""
        self._set_timeout()
        return self._client.read(key)

    def _change(self, change: Callable[..., bool], *arguments: Any) -> bool:
        self._set_timeout()
        self.unknown = True
        changed = change(*arguments)
        self.unknown = False
        return changed

    def _set_timeout(self) -> None:
        remaining = self.deadline - clocks.monotonic()
        if remaining <= 0:
            raise TimeoutError("timed out")
        self._client.set_timeout(remaining)


class Server:
    """The server of a cache, and this process's idle connections to it."""

    def __init__(self, cache: BaseCache) -> None:
        [self._address] = cache.client_servers  # type: ignore[attr-defined]
        self._options: dict[str, Any] = cache._options  # type: ignore[attr-defined]
        self._idle: list[Client] = []

    def take_idle(self) -> Client | None:
        """Return an idle connection, which is the caller's until it is put back."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def new(self, seconds: float) -> Client:
        """Return a client that connects at its first call. See Client."""
        return Client(self._address, self._options, seconds)

    def put_back(self, client: Client) -> None:
        """Keep the connection for another call."""
        if len(self._idle) < MAX_IDLE:
            self._idle.append(client)
        else:
            client.close()

    def close_idle(self) -> None:
        """Close the connections that no thread uses."""
        while client := self.take_idle():
            client.close()


_servers: dict[Any, Server] = {}


def shared_server(key: Any, make: Callable[[], Server]) -> Server:
    """Return this process's server with that key."""
    found = _servers.get(key)
    return found or _servers.setdefault(key, make())


def close_idle() -> None:
    """Close all idle connections of this process."""
    for server in list(_servers.values()):
        server.close_idle()


# Before a fork, or else parent and child would read each other's answers.
os.register_at_fork(before=close_idle, after_in_child=_servers.clear)
atexit.register(close_idle)
