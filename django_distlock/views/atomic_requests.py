"""Open the transactions of ATOMIC_REQUESTS inside the lock: it must outlast their commit."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Final

from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse

from django_distlock.runtime import atomic_exemptions, set_atomic_exemptions
from django_distlock.transactions import undoable_transactions


class LockedExemptions(set[str]):
    """The databases that a locked view is exempt from ATOMIC_REQUESTS for.

    Django finds every alias in it, so it opens no transaction around the lock; they are opened
    inside. The aliases that it really contains come from `transaction.non_atomic_requests`.
    """

    def __contains__(self, alias: object) -> bool:
        return True


def take_over_transactions(locked: Callable[..., Any], view: Callable[..., Any]) -> None:
    """Keep Django from opening transactions around the locked view. Two locks share one set."""
    exempt = atomic_exemptions(view)
    if exempt is not None:
        if not isinstance(exempt, LockedExemptions):
            exempt = LockedExemptions(exempt)
        set_atomic_exemptions(locked, exempt)


NO_TRANSACTIONS: Final = nullcontext(False)


def request_transactions(
    request: HttpRequest | None, view: Callable[..., Any]
) -> AbstractContextManager[bool]:
    """Return a context with the transactions that Django left to us.

    It yields whether there are any; another lock inside may open them.
    """
    if request is None or isinstance(atomic_exemptions(view), LockedExemptions):
        return NO_TRANSACTIONS
    aliases = _left_to_us(request)
    return _transactions(aliases) if aliases else NO_TRANSACTIONS


@contextmanager
def _transactions(aliases: list[str]) -> Iterator[bool]:
    with ExitStack() as stack:
        for alias in aliases:
            stack.enter_context(transaction.atomic(using=alias))
        yield True


def is_atomic(request: HttpRequest) -> bool:
    """Tell whether transactions are around the view, ours or Django's, that undo a failure."""
    return bool(_left_to_us(request) or undoable_transactions())


def rolled_back(response: HttpResponse) -> HttpResponse:
    """Mark the transactions around a locked method for rollback, and return the response.

    They are Django's own: ours are only opened inside the lock of a whole view. The response must
    be rendered by now, since the database takes no more queries.
    """
    for connection in undoable_transactions():
        connection.set_rollback(True)
    return response


def _left_to_us(request: HttpRequest) -> list[str]:
    """Return the databases for which Django would have opened a transaction, but for our locks."""
    match = request.resolver_match
    exempt = atomic_exemptions(match.func) if match else None
    if not isinstance(exempt, LockedExemptions):
        return []
    return [alias for alias in reversed(_atomic_aliases()) if alias not in set(exempt)]


def _atomic_aliases() -> list[str]:
    databases = connections.settings.items()
    return [alias for alias, database in databases if database["ATOMIC_REQUESTS"]]
