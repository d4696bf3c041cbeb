"""The system checks of the servers that run the site's processes."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.core import checks
from django.test import override_settings

from django_distlock.checks.processes import check_threads, check_worker_timeout, request_limits

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("environment", "is_warned"),
    [
        ({}, False),
        ({"UWSGI_ORIGINAL_PROC_NAME": "x"}, False),
        ({"UWSGI_MODULE": "site.wsgi"}, True),
        ({"UWSGI_HTTP": ":8000", "UWSGI_ENABLE_THREADS": "false"}, True),
        ({"UWSGI_HTTP": ":8000", "UWSGI_ENABLE_THREADS": "True"}, False),
        ({"UWSGI_HTTP": ":8000", "UWSGI_THREADS": "4"}, False),
        ({"UWSGI_INI": "/nowhere.ini"}, False),
    ],
)
def test_uwsgi_without_threads_is_warned_of(
    environment: dict[str, str], is_warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as the environment declares it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    messages = [*check_threads()]
    assert [message.id for message in messages] == ["distlock.W018"] * is_warned
    if is_warned:
        assert "enable-threads = true" in str(messages[0].hint)


@pytest.mark.parametrize(
    ("lines", "is_warned"),
    [
        ("module = site.wsgi", True),
        ("enable-threads = true", False),
        ("enable-threads", False),
        ("enable-threads = false", True),
        ("threads = 2\nthreads = 4\nhttp = %(x)%", False),
        ("\x00[", True),
    ],
)
def test_uwsgi_is_read_from_its_file(
    lines: str, is_warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is in it."""
    file = tmp_path / "uwsgi.ini"
    file.write_text(f"[uwsgi]\n{lines}\n")
    monkeypatch.setenv("UWSGI_INI", str(file))
    assert bool([*check_threads()]) is is_warned
    file.write_text(f"[uwsgi]\n[site]\n{lines}\n")
    monkeypatch.setenv("UWSGI_INI", f"{file}:site")
    assert bool([*check_threads()]) is is_warned


@pytest.mark.parametrize(
    ("options", "is_warned"), [({"http": b":8000"}, True), ({"enable-threads": True}, False)]
)
def test_uwsgi_that_runs_this_process_is_asked(
    options: dict[str, Any], is_warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its module has its options."""
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(opt=options))
    assert bool([*check_threads()]) is is_warned


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("", None),
        ("--bind=:8000", None),
        ("--timeout 20", 20),
        ("--timeout=20", 20),
        ("-t 20 -w 4", 20),
        ("--timeout=0", None),
        ("--timeout=20 -k gthread", None),
        ("--timeout=20 --threads 4", None),
        ("--timeout=soon", None),
        ("--timeout '", None),
        ("--timeout", None),
    ],
)
def test_timeout_of_gunicorn_is_known(
    words: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of sync workers: no timeout ends a request in a thread."""
    monkeypatch.setenv("GUNICORN_CMD_ARGS", words)
    assert [limit.seconds for limit in request_limits()] == ([seconds] if seconds else [])


@pytest.mark.parametrize(("harakiri", "seconds"), [("30", [30]), ("0", []), ("soon", [])])
def test_timeout_of_uwsgi_is_known(
    harakiri: str, seconds: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is called harakiri."""
    monkeypatch.setenv("UWSGI_MASTER", "1")
    monkeypatch.setenv("UWSGI_HARAKIRI", harakiri)
    assert [limit.seconds for limit in request_limits()] == seconds


@pytest.mark.parametrize(
    ("setting", "limits", "is_error"),
    [
        (None, [], False),
        (30, [("DISTLOCK_WORKER_TIMEOUT", 30)], False),
        ("30", [], True),
        (0, [], True),
        (True, [], True),
    ],
)
def test_timeout_of_other_servers_can_be_declared(
    setting: Any, limits: list[tuple[str, float]], is_error: bool
) -> None:
    """As a number of seconds."""
    with override_settings(DISTLOCK_WORKER_TIMEOUT=setting):
        assert request_limits() == limits
        messages = [*check_worker_timeout()]
    assert [message.id for message in messages] == ["distlock.E010"] * is_error
    if is_error:
        assert isinstance(messages[0], checks.Error)
        assert messages[0].msg.startswith("DISTLOCK_WORKER_TIMEOUT: it is")
