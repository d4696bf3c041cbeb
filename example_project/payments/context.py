"""What every page of the example is given."""

from django.conf import settings
from django.http import HttpRequest


def listed_locks(request: HttpRequest) -> dict[str, bool]:
    """Tell whether the admin lists the locks: it has those of the database only."""
    return {"locks_are_listed": settings.STORE == "database"}
