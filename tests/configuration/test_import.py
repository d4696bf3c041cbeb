"""What importing the package does before Django is configured."""

import os
import subprocess
import sys

SANITY = """
import logging, os, signal, threading, django.dispatch
from django.conf import settings
handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
import django_distlock, django_distlock.signals
assert not settings.configured
assert threading.enumerate() == [threading.main_thread()]
assert handlers == {number: signal.getsignal(number) for number in signal.valid_signals()}
assert not logging.getLogger("django_distlock").handlers
assert "django_distlock.models" not in __import__("sys").modules
from django_distlock.background import backgrounds
assert not backgrounds
for name in vars(django_distlock.signals):
    if name.startswith("lock_"):
        assert not getattr(django_distlock.signals, name).receivers
"""


def test_import_alone_does_nothing_but_connect_signals() -> None:
    """Settings are not needed, no thread runs, and nothing is written anywhere."""
    environment = {key: value for key, value in os.environ.items() if "DJANGO" not in key}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SANITY],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
