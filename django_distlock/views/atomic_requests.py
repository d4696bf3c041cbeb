"""The lock has to outlast the transaction that ATOMIC_REQUESTS puts around a view."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse

from django_distlock.transactions import open_transactions


class LockedExemptions(set[str]):
    """The `_non_atomic_requests` of a locked view.

    Django finds every alias in it, and so opens no transaction around the lock: that is done inside
    it. What it really holds are the aliases that `transaction.non_atomic_requests` put there.
    """

    def __contains__(self, alias: object) -> bool:
        return True


def take_over_transactions(locked: Callable[..., Any], view: Callable[..., Any]) -> None:
    """Let no transaction be opened around the locked view; two locks share one set."""
    exempt: set[str] = getattr(view, "_non_atomic_requests", set())
    if not isinstance(exempt, LockedExemptions):
        exempt = LockedExemptions(exempt)
    vars(locked)["_non_atomic_requests"] = exempt


@contextmanager
def request_transactions(request: HttpRequest, view: Callable[..., Any]) -> Iterator[bool]:
    """Open what ATOMIC_REQUESTS asks for, if Django left it to us and no lock is further inside.

    Yield whether there was anything to open.
    """
    aliases = [] if _is_locked(view) else _left_to_us(request)
    with ExitStack() as stack:
        for alias in aliases:
            stack.enter_context(transaction.atomic(using=alias))
        yield bool(aliases)


def is_atomic(request: HttpRequest) -> bool:
    """Tell whether transactions are around the view, ours or Django's, that undo what fails."""
    return bool(_left_to_us(request) or open_transactions())


def rolled_back(response: HttpResponse) -> HttpResponse:
    """Let what the request did be undone by the transactions around a locked method.

    They are Django's own: only of a whole view are they opened inside the lock. The response is
    rendered by now, since nothing can be asked of the database any more.
    """
    for connection in open_transactions():
        connection.set_rollback(True)
    return response


def _left_to_us(request: HttpRequest) -> list[str]:
    """Return on which databases Django would have opened a transaction, but for our locks."""
    exempt = _resolved_exemptions(request)
    if not isinstance(exempt, LockedExemptions):
        return []
    return [alias for alias in reversed(_atomic_aliases()) if alias not in set(exempt)]


def _resolved_exemptions(request: HttpRequest) -> set[str]:
    match = request.resolver_match
    return getattr(match.func, "_non_atomic_requests", set()) if match else set()


def _is_locked(view: Callable[..., Any]) -> bool:
    return isinstance(getattr(view, "_non_atomic_requests", None), LockedExemptions)


def _atomic_aliases() -> list[str]:
    return [alias for alias in connections if connections.settings[alias]["ATOMIC_REQUESTS"]]
