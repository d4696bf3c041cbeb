"""Times as the admin's pages show them."""

from datetime import UTC, datetime

from django.utils.formats import localize, time_format
from django.utils.timezone import localtime


def show_time(time: datetime) -> str:
    """Return the time in the viewer's time zone and format."""
    return str(localize(localtime(time)))


def show_now() -> str:
    """Return the present time of day, to the second."""
    return time_format(localtime(datetime.now(UTC)), "H:i:s")
