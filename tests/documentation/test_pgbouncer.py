"""docs/how-to/pgbouncer.md with a pooler, on an empty database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import connections

from tests.support.documentation import commands, shown, values
from tests.support.postgresql import start_pgbouncer
from tests.support.shop_site import ShopSite
from tests.support.with_lock import empty_database

if TYPE_CHECKING:
    from pathlib import Path

PAGE = "how-to/pgbouncer.md"
pytestmark = [
    pytest.mark.once,
    pytest.mark.needs("postgresql", "pgbouncer"),
    pytest.mark.django_db(transaction=True, databases=["postgresql"]),
]

EITHER_WAY = """
from django_distlock import acquire_lock
ways = ["default", "direct"]
for held, refused in [ways, ways[::-1]]:
    lease = acquire_lock("1234collectPayment", backend=held)
    assert lease and acquire_lock("1234collectPayment", backend=refused) is None
    lease.release()
print("excluded")
"""


def test_page_migrates_directly_and_locks_either_way(tmp_path: Path) -> None:
    """By its settings and its command. tests/with_lock goes through PgBouncer."""
    page = values(PAGE)
    assert page["SILENCED_SYSTEM_CHECKS"] == ["distlock.W011"]
    with (
        empty_database("postgresql") as database,
        start_pgbouncer(connections.settings["postgresql"]) as pooler,
    ):
        place = {"default": pooler.settings, "direct": database}
        databases = {
            alias: entry
            | {key: place[alias][key] for key in ("HOST", "PORT", "USER")}
            | {"NAME": database["NAME"]}
            for alias, entry in page["DATABASES"].items()
        }
        site = ShopSite(tmp_path, DATABASES=databases, DISTLOCK=page["DISTLOCK"])
        ((migrate, _),) = commands(shown(PAGE, "console")[0])
        migrated = site.run(migrate)
        assert (migrated.code, "Applying distlock.0001_initial... OK" in migrated.output) == (
            0,
            True,
        ), migrated.output
        assert site.run_python(EITHER_WAY).output.endswith("excluded\n")
