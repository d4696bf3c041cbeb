"""Settings of a lock server whose clocks a test moves, and whose offers outlast any stall."""

from tests.support.moved_clock_settings import *  # noqa: F403, I001 - before the clock is read

from django_distlock.server import transitions

transitions.OFFER_SECONDS = 60.0  # type: ignore[misc]
