"""docs/how-to/move.md: while locks move, two workers never hold one at the same time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import suppress
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.core.management import call_command

for library in ("sybil", "yaml"):
    pytest.importorskip(library)

from django_distlock import LockLost, acquire_lock, distributed_lock  # noqa: E402
from tests.documentation.pages import evaluate, parse  # noqa: E402
from tests.documentation.shop import models  # noqa: E402
from tests.support.children import tied  # noqa: E402
from tests.support.documentation import DOCUMENTS, shown  # noqa: E402
from tests.support.ports import HOST  # noqa: E402
from tests.support.processes import worker_environment  # noqa: E402
from tests.support.shop_site import ShopSite  # noqa: E402
from tests.support.with_lock import settings_of  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import Server

PAGE = "how-to/move.md"
pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]
ROLLOUTS = [[0, 1], [1, 2]]
"""The deploys whose code runs at the same time, by their numbers less one."""
TOO_FAST = [0, 2]


def deploys() -> tuple[list[str], str]:
    """Return the code of the three deploys, and that of the second one for a new name."""
    *three, renamed = [block for block in shown(PAGE) if "def collect" in block]
    assert len(three) == 3
    return three, renamed


def documented_settings(redis: Server) -> list[dict[str, Any]]:
    """Return the settings of the three deploys, with Redis at the tests' server."""
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    for names, block in zip(
        (first, second), [block for block in shown(PAGE) if "DISTLOCK =" in block], strict=True
    ):
        exec(block, names)
    here = f"{HOST}:{redis.port}"
    for cache in second["CACHES"].values():
        cache["LOCATION"] = re.sub(r"10\.0\.0\.[45]:6379", here, cache["LOCATION"])
    moved = {"CACHES": second["CACHES"], "DISTLOCK": second["DISTLOCK"]}
    return [{"DISTLOCK": first["DISTLOCK"]}, moved, moved]


def configure(settings: Any, documented: dict[str, Any]) -> None:
    """Use the settings of a deploy in this process."""
    for name, value in documented.items():
        setattr(settings, name, value)


def overlaps(
    alias: str, of_deploys: list[dict[str, Any]], code: list[str], pairs: list[list[int]]
) -> list[int]:
    """Run a process of each deploy; return how often two were at work at once, by pairs."""
    databases = {"DATABASES": {"default": settings_of(alias)}}
    versions = [
        {"settings": databases | entry, "code": block}
        for entry, block in zip(of_deploys, code, strict=True)
    ]
    scenario = json.dumps({"versions": versions, "pairs": pairs})
    done = subprocess.run(
        tied([sys.executable, "-m", "tests.support.versions", scenario]),
        env=worker_environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=200,
        check=True,
    )
    return list(json.loads(done.stdout))


@pytest.mark.needs("redis")
def test_two_stores_never_grant_at_once_in_three_deploys(redis_server: Server) -> None:
    """From the database to Redis, by the page's settings and code. In one deploy they do."""
    of_deploys = documented_settings(redis_server)
    *rollouts, too_fast = overlaps("default", of_deploys, deploys()[0], [*ROLLOUTS, TOO_FAST])
    assert rollouts == [0, 0]
    assert too_fast


@pytest.mark.needs("postgresql", "lock_server")
@pytest.mark.django_db(transaction=True, databases=["default", "postgresql"])
def test_other_stores_are_moved_in_the_same_way() -> None:
    """From PostgreSQL to a lock server."""
    old = settings.DISTLOCK["default"]
    both = {"default": settings.DISTLOCK["lock_server"], "old": old}
    of_deploys = [{"DISTLOCK": stores} for stores in ({"default": old}, both, both)]
    assert overlaps("postgresql", of_deploys, deploys()[0], ROLLOUTS) == [0, 0]


def test_renamed_locks_exclude_each_other() -> None:
    """The third deploy has the new name alone."""
    three, renamed = deploys()
    last = renamed.replace('@distributed_lock("<customer_id>collectPayment")  # the old name\n', "")
    assert last != renamed
    of_deploys = [{"DISTLOCK": {"default": settings.DISTLOCK["default"]}}] * 3
    assert overlaps("default", of_deploys, [three[0], renamed, last], ROLLOUTS) == [0, 0]


@pytest.mark.needs("redis")
@pytest.mark.usefixtures("shop")
def test_commands_of_the_page_work(
    redis_server: Server, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the settings of the second deploy; its pause with those of the first."""
    first, second, _ = documented_settings(redis_server)
    configure(settings, second)
    site = ShopSite(tmp_path, DATABASES={"default": settings_of("default")}, **second)
    for variable in ("PATH", "PYTHONPATH"):
        monkeypatch.setenv(variable, site.environment[variable])
    report = tmp_path / "report.sh"
    report.write_text("#!/bin/sh\npython manage.py list_locks --format json >report.json\n")
    report.chmod(0o700)
    for example in parse(DOCUMENTS / PAGE).examples():
        if "pause_locks" in example.region.parsed:
            configure(settings, first)
        evaluate(example)
    held = json.loads((tmp_path / "report.json").read_text())
    assert {(lock["backend"], lock["semaphore"]) for lock in held} == {
        ("old", "report:nightly"),
        ("default", "report:nightly"),
    }


@pytest.mark.needs("redis")
def test_paused_old_store_grants_nothing_beside_the_new_one(
    redis_server: Server, settings: Any
) -> None:
    """Neither to pods with the old settings nor to those with the new ones."""
    first, second, _ = documented_settings(redis_server)
    configure(settings, first)
    call_command("pause_locks", "--all", stdout=StringIO())
    assert acquire_lock("1234collectPayment") is None
    configure(settings, second)
    assert acquire_lock("1234collectPayment", backend="old") is None
    lease = acquire_lock("1234collectPayment")
    assert lease
    assert lease.release()
    call_command("resume_locks", "--all", "--backend=old", stdout=StringIO())


@pytest.mark.needs("redis")
@pytest.mark.usefixtures("shop")
def test_fenced_rows_are_written_with_tokens_of_either_store(
    redis_server: Server, settings: Any
) -> None:
    """The second store's tokens are greater, since all begin with the clock."""
    _, second, _ = documented_settings(redis_server)
    configure(settings, second)
    customer = models.Customer(name="Ann")
    customer.save()
    invoice = models.Invoice(customer=customer)
    semaphore = f"{customer.pk}collectPayment"
    with suppress(LockLost), distributed_lock(semaphore, backend="old") as older:
        with distributed_lock(semaphore) as newer:
            invoice.save(lease=older)
            invoice.save(lease=newer)
            with distributed_lock(semaphore, backend="old", reentrant=True) as same:
                assert same.token == older.token
        with pytest.raises(LockLost):
            invoice.save(lease=older)
