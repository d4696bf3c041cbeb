"""Sentry: an error of each lost lease, without the customer's id; and owners, which it never gets.

Sentry's library runs in processes of its own, because it patches others and can't be taken out.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest

from tests.support.databases import committed
from tests.support.processes import Workers
from tests.support.workers.sentry import places

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(find_spec("sentry_sdk") is None, reason="sentry-sdk is not installed"),
    pytest.mark.needs("postgresql", "mariadb", "redis", "lock_server", "memcached"),
    committed,
]

STORES = ["memory", "default", "orm", "postgresql", "mariadb", "redis", "lock_server", "memcached"]


@pytest.fixture
def sent() -> dict[str, list[Any]]:
    """Return what a process sends to Sentry, by what it does."""
    return record()


@cache
def record() -> dict[str, list[Any]]:
    """Run the process, once for all tests."""
    with Workers(1, "record", *STORES) as workers:
        [result] = workers.results()
    found: dict[str, list[Any]] = result
    return found


def events_of_losses(items: list[Any]) -> list[dict[str, Any]]:
    """Return the events that are about lost leases, by the integration."""
    return [item for item in items if "distlock" in item.get("contexts", {})]


def frames_of(item: dict[str, Any]) -> list[dict[str, Any]]:
    """Return this package's frames in an event."""
    stacks = [
        each["stacktrace"]
        for part in ("exception", "threads")
        for each in item.get(part, {}).get("values", ())
        if "stacktrace" in each
    ]
    frames = [frame for stack in stacks for frame in stack["frames"]]
    return [each for each in frames if str(each.get("module")).startswith("django_distlock.")]


def test_each_loss_is_an_error_of_its_template(sent: dict[str, list[Any]]) -> None:
    """With what is known of it, and of the request that acquired the lease."""
    first, second, later, other = events_of_losses(sent["hidden"])
    assert first["level"] == "error"
    assert first["message"] == "A lease on <customer_id>collectPayment was lost"
    assert first["fingerprint"] == second["fingerprint"] != other["fingerprint"]
    assert first["tags"] == {
        "distlock.template": "<customer_id>collectPayment",
        "distlock.backend": "memory",
        "url": "/collect/",
    }
    details = first["contexts"]["distlock"]
    assert details["holder"].startswith("payments (")
    assert details["held_for"] > 0
    assert details["grant"] < second["contexts"]["distlock"]["grant"]
    assert "an operator took it away" in details["reason"]
    assert other["message"] == "A lease was lost"
    assert other["contexts"]["distlock"]["template"] == ""
    assert later["tags"]["url"] == "/later/"
    assert "url" not in other["tags"]


def test_loss_is_reported_once(sent: dict[str, list[Any]]) -> None:
    """The log line of a loss is no event of its own, though a warning is one here."""
    lines = [item["logentry"]["message"] for item in sent["hidden"] if "logentry" in item]
    assert lines == [
        "The lock on %r, with token %s, was force-released%s.",
        "A request failed under its lock: its work may have been done in part.",
        "The lock on %r, with token %s, was force-released%s.",
        "A request failed under its lock: its work may have been done in part.",
        *["The lock on %r, with token %s, was force-released%s."] * 2,
        "%s could not be released; it ends %s.",
        "%r is late. (%d more lines like this were left out%s)",
        "A line that isn't long about %r",
    ]


def test_sentry_gets_semaphores_only_when_asked_to(sent: dict[str, list[Any]]) -> None:
    """Of log lines, breadcrumbs, Sentry Logs, lock errors, and variables of frames."""
    hidden, shown = sent["hidden"], sent["shown"]
    for semaphore in (
        *("1234collectPayment", "5678collectPayment", "4711refund", "4711audit"),
        *("4711pay", "4711wait", "4711none", "4711group", "4711\\x00"),
        *(
            "4711later",
            "4711left",
            "4711shown",
            "4711cycle",
            "4711context",
            "4711other",
            "4711event",
        ),
    ):
        assert [place for item in hidden for place in places(item, semaphore)] == []
        assert [place for item in shown for place in places(item, semaphore)] != []
    assert [frame for item in hidden for frame in frames_of(item) if frame.get("vars")] == []
    first = events_of_losses(shown)[0]
    assert first["contexts"]["distlock"]["semaphore"] == "1234collectPayment"
    assert "breadcrumbs" in first
    assert any("items" in item for item in shown)  # Sentry Logs


def test_sentry_never_gets_an_owner(sent: dict[str, list[Any]]) -> None:
    """Neither by queries and their parameters, nor by log lines, nor by variables of frames.

    It is found only in the message that the process sends to show that it would be found.
    """
    assert sent["owners"] == [".message"]
