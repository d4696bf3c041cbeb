"""What a row of the table is: something wrong, the stores it is tried on, and the error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LISTING = frozenset(
    {
        *("memory", "default", "orm", "postgresql", "orm_postgresql", "mariadb", "mysql"),
        *("redis", "django_redis_cache", "redis_cluster", "lock_server"),
    }
)
"""Stores that list their locks."""
PAUSING = LISTING - {"redis_cluster"}
DATABASES = LISTING - {
    *("memory", "redis", "django_redis_cache", "redis_cluster", "lock_server", "orm_postgresql")
}
STORES = LISTING | {"memcached", "minimal"}


SHOWN = 20
"""Characters."""


class Row(NamedTuple):
    """Something wrong."""

    what: str
    call: Callable[..., Any]
    """Called with the alias of the store, or with what else it needs."""
    error: type[BaseException] | int | str
    """The error, of this type exactly; or the status, exit code or code of an answer."""
    says: str
    """A part of the message, as a regular expression: what is wrong, or what to do."""
    stores: frozenset[str] = STORES


def shown(value: object) -> str:
    """Return a value as a row's name shows it."""
    if isinstance(value, str | bytes) and len(value) > SHOWN:
        return f"{value[:5]!r}… of {len(value)}"
    if type(value) is int and abs(value) > 10**SHOWN:
        return f"an int of {value.bit_length()} bits, {'above' if value > 0 else 'below'} 0"
    return f"{value!r:.60}"


class Answered(Exception):
    """An answer that refuses something: of a view, of a command, or of a lock server."""

    def __init__(self, code: int | str, text: str) -> None:
        super().__init__(text)
        self.code = code


def complaints(rows: Iterable[Row], *arguments: Any) -> list[str]:
    """Return what is wrong with the answers to these rows: nothing, it is hoped."""
    found = []
    for row in rows:
        try:
            result = row.call(*arguments)
        except BaseException as error:  # noqa: BLE001 - an exit of a command, too
            kind = error.code if isinstance(error, Answered) else type(error)
            if kind != row.error or not re.search(row.says, str(error)):
                found.append(f"{row.what}: {kind}: {error}")
        else:
            found.append(f"{row.what}: accepted, {result!r}")
    return found
