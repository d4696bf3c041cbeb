"""Django's error page with DEBUG on."""

from __future__ import annotations

import secrets
from unittest import mock

import pytest
from django.views.debug import ExceptionReporter

from django_distlock import LockBackendUnavailable, acquire_lock
from django_distlock.records import Owner

SECRET = secrets.token_hex(16)
"""An owner; a global, since the page shows what is local to the functions here."""


def page_of_lost_reply(alias: str) -> str:
    """Acquire "lost reply" as SECRET, which must raise; return the error's page."""
    with mock.patch("django_distlock.locks.acquisition.new_owner", return_value=Owner(SECRET)):
        with pytest.raises(LockBackendUnavailable) as caught:
            acquire_lock("lost reply", backend=alias)
    return page_of(caught.value)


def page_of(error: BaseException) -> str:
    """Return the page of an error: with the variables of all frames, but without the settings."""
    reporter = ExceptionReporter(None, type(error), error, error.__traceback__)
    with mock.patch.object(reporter.filter, "get_safe_settings", return_value={}):
        page: str = reporter.get_traceback_html()
    return page
