"""System checks of the servers that run the site's processes, as far as these are declared."""

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from configparser import ConfigParser, Error
from contextlib import suppress
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.core import checks

from django_distlock.arguments import LONGEST, validate_seconds

PREFIX: Final = "UWSGI_"
"""How the environment variables begin that are options of uWSGI."""
DECLARING: Final = ("ini", "module", "wsgi-file", "http", "http-socket", "socket", "master")
"""Options of uWSGI without which it runs no site: the environment may have others by chance."""
UNKNOWN: Final = "unknown"
"""Stands for an option that may be in a file that can't be read here."""
OFF: Final = ("", "0", "false", "no", "off")


class Limit(NamedTuple):
    """The seconds after which a server ends a worker that still handles one request or task."""

    setting: str
    """Where they are declared, for people."""
    seconds: float


def check_threads(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Warn if uWSGI runs the site without threads: no lease is renewed then."""
    options = _uwsgi_options()
    if options and all(options.get(name, "") in OFF for name in ("enable-threads", "threads")):
        yield checks.Warning(
            "UWSGI_ENABLE_THREADS: uWSGI runs no threads, so no lease is renewed: each is lost "
            "after its ttl.",
            hint="Write enable-threads = true in uWSGI's configuration, or set "
            "UWSGI_ENABLE_THREADS=1 in its environment.",
            id="distlock.W018",
        )


def check_worker_timeout(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Report a DISTLOCK_WORKER_TIMEOUT that is no number of seconds."""
    try:
        _declared_seconds()
    except (TypeError, ValueError) as error:
        yield checks.Error(
            f"DISTLOCK_WORKER_TIMEOUT: {error}",
            hint="Write DISTLOCK_WORKER_TIMEOUT = 30, the seconds after which your server ends a "
            "worker that hasn't answered.",
            id="distlock.E010",
        )


def request_limits() -> list[Limit]:
    """Return the declared limits of a worker that handles a request."""
    limits = []
    with suppress(TypeError, ValueError):  # check_worker_timeout() reports it
        if seconds := _declared_seconds():
            limits.append(Limit("DISTLOCK_WORKER_TIMEOUT", seconds))
    if seconds := _gunicorn_seconds():
        limits.append(Limit("GUNICORN_CMD_ARGS: --timeout", seconds))
    with suppress(ValueError):
        if seconds := float(_uwsgi_options().get("harakiri") or 0):
            limits.append(Limit("UWSGI_HARAKIRI (harakiri of uWSGI)", seconds))
    return limits


def _declared_seconds() -> float | None:
    seconds = getattr(settings, "DISTLOCK_WORKER_TIMEOUT", None)
    if seconds is None:
        return None
    return validate_seconds("it", seconds, 0.001, LONGEST, "None declares nothing")


def _gunicorn_seconds() -> float | None:
    """Return the `--timeout` of Gunicorn's sync workers; no other worker is ended by it."""
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False, add_help=False)
    parser.add_argument("-t", "--timeout", type=float)
    parser.add_argument("-k", "--worker-class", default="sync")
    parser.add_argument("--threads", type=int, default=1)
    try:
        words = shlex.split(os.environ.get("GUNICORN_CMD_ARGS", ""))
        found, _ = parser.parse_known_args(words)
    except (argparse.ArgumentError, ValueError):  # Gunicorn will say so
        return None
    ends_requests = found.worker_class == "sync" and found.threads <= 1
    seconds: float | None = found.timeout
    return seconds if ends_requests else None


def _uwsgi_options() -> Mapping[str, str]:
    """Return uWSGI's options: those it runs with, or else those in its environment variables."""
    running = getattr(sys.modules.get("uwsgi"), "opt", None)
    if running:
        return {_text(name): _text(value) for name, value in running.items()}
    options = {
        name.removeprefix(PREFIX).lower().replace("_", "-"): value.lower()
        for name, value in os.environ.items()
        if name.startswith(PREFIX)
    }
    if not any(name in options for name in DECLARING):
        return {}
    if ini := os.environ.get(f"{PREFIX}INI"):
        file, _, section = ini.partition(":")
        parser = ConfigParser(strict=False, interpolation=None, allow_no_value=True)
        with suppress(OSError, Error, UnicodeError):  # uWSGI will say so
            parser.read(file, encoding="utf-8")
        if parser.has_section(section := section or "uwsgi"):
            options |= {name: _text(value) for name, value in parser.items(section)}
        else:
            options.setdefault("enable-threads", UNKNOWN)
    return options


def _text(value: Any) -> str:
    """Return the text of an option; a flag without a value is on."""
    if value is None or value is True:
        return "true"
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
