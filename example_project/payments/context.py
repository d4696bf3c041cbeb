"""Variables for every page of the example."""

from django.conf import settings
from django.http import HttpRequest


def listed_locks(request: HttpRequest) -> dict[str, bool]:
    """Say whether the admin lists the locks: it lists those in the database only."""
    return {"locks_are_listed": settings.STORE == "database"}
