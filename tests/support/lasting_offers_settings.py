"""Settings of a lock server whose offers don't expire, however slow this machine is."""

from django_distlock.server import transitions
from tests.support.lock_server_settings import *  # noqa: F403

transitions.OFFER_SECONDS = 60.0  # type: ignore[misc]
