"""Settings of a lock server where no offer ends by itself, however slow this machine is."""

from django_distlock.server import table
from tests.support.lock_server_settings import *  # noqa: F403

table.OFFER = 60.0  # type: ignore[misc]
