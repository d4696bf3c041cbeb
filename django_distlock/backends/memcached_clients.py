"""The clients that Django knows for Memcached, each on a connection that is for locks alone.

Django's cache objects won't do: by default they wait for ever, pickle, or answer for a dead server.
"""

import atexit
import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from django.core.cache.backends.base import BaseCache

from django_distlock import clocks
from django_distlock.records import Owner

TRIES: Final = 10
"""How often an entry is read again that somebody keeps changing."""
UNSETTLED: Final = f"the entry changed, or was gone, {TRIES} times in between"

MOST_IDLE: Final = 8
"""Connections that a process keeps for the next call. There may be more at work."""


class Entry(NamedTuple):
    """What is stored: whose it is, and what replaces this entry and no other."""

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
        """Let the next call wait so long for the server."""
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
        """Tell whether the server answered that it did nothing."""
        return not isinstance(error, self._no_answers)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class Conversation:
    """Requests that belong together, and take so many seconds at most."""

    def __init__(self, client: Client, deadline: float) -> None:
        self._client = client
        self._deadline = deadline
        self.unknown = False
        """Whether something may have been changed, but the server didn't answer."""

    def continue_until(self, deadline: float) -> None:
        """Let what follows take until then."""
        self._deadline = deadline

    def acquire(self, key: bytes, owner: str, expiry: int) -> bool:
        """Store it unless somebody else has; what is his own gets a new expiry."""
        for _ in range(TRIES):
            if self._change(self._client.add, key, owner, expiry):
                return True
            entry = self.read(key)
            if entry is None:
                continue  # it has expired, or was released, in between
            if entry.owner != owner:
                return False
            if self._change(self._client.replace, key, owner, entry.cas, expiry):
                return True
        raise TimeoutError(UNSETTLED)

    def replace(self, key: bytes, owner: str, new: str, expiry: int) -> bool:
        """Store something new in the place of what this owner has; False if he hasn't."""
        for _ in range(TRIES):
            entry = self.read(key)
            if entry is None or entry.owner != owner:
                return False
            if self._change(self._client.replace, key, new, entry.cas, expiry):
                return True
            # He renews it in another thread, or it has expired.
        raise TimeoutError(UNSETTLED)

    def read(self, key: bytes) -> Entry | None:
        """Return what is stored."""
        self._limit()
        return self._client.read(key)

    def _change(self, change: Callable[..., bool], *arguments: Any) -> bool:
        self._limit()
        self.unknown = True
        changed = change(*arguments)
        self.unknown = False
        return changed

    def _limit(self) -> None:
        left = self._deadline - clocks.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._client.set_timeout(left)


class Server:
    """The server that a cache names, and this process's idle connections to it."""

    def __init__(self, cache: BaseCache) -> None:
        [self._address] = cache.client_servers  # type: ignore[attr-defined]
        self._options: dict[str, Any] = cache._options  # type: ignore[attr-defined]
        self._idle: list[Client] = []

    def take(self) -> Client | None:
        """Return an idle connection for the caller alone."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def new(self, seconds: float) -> Client:
        """Return a client that, at its first call, will take so long to connect, and to wait."""
        return Client(self._address, self._options, seconds)

    def give_back(self, client: Client) -> None:
        """Keep the connection for another call."""
        if len(self._idle) < MOST_IDLE:
            self._idle.append(client)
        else:
            client.close()

    def close_idle(self) -> None:
        """Close the connections that no thread uses."""
        while client := self.take():
            client.close()


_servers: dict[Any, Server] = {}


def shared(key: Any, make: Callable[[], Server]) -> Server:
    """Return this process's server of that key."""
    found = _servers.get(key)
    return found or _servers.setdefault(key, make())


def close_idle() -> None:
    """Close all idle connections of this process."""
    for server in list(_servers.values()):
        server.close_idle()


# Before a fork: parent and child would read each other's answers.
os.register_at_fork(before=close_idle, after_in_child=_servers.clear)
atexit.register(close_idle)
