"""The script of docs/how-to/deploy.md, as a shell runs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from django.conf import settings

from django_distlock import distributed_lock, lock_backends
from django_distlock.records import LockState
from tests.support.databases import committed
from tests.support.documentation import shown
from tests.support.shop_site import ShopSite
from tests.support.with_lock import settings_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.once, committed]

LOOK = "python manage.py list_locks --pauses --format json > paused.json"


def test_script_pauses_the_locks_until_the_deploy_is_done(tmp_path: Path) -> None:
    """It doesn't wait for a lock that only `min_hold` keeps."""
    [script] = [block for block in shown("how-to/deploy.md", "sh") if "pause_locks" in block]
    deploy = "# ... stop the old workers, start the new ones ..."
    assert deploy in script
    site = ShopSite(
        tmp_path,
        DATABASES={"default": settings_of("default")},
        DISTLOCK={"default": settings.DISTLOCK["default"]},
    )
    with distributed_lock("1234collectPayment", min_hold=600):
        pass
    store = lock_backends["default"]
    kept = store.find("1234collectPayment")
    assert kept is not None
    assert kept.state is LockState.HELD
    done = site.run(script.replace(deploy, LOOK))
    assert done.code == 0, done.output
    assert done.output.startswith("Paused: all locks, until ")
    assert done.output.endswith("No pauses.\n")
    [paused] = json.loads((tmp_path / "paused.json").read_text())
    assert paused["reason"] == "deploy 41"
    assert store.pauses() == []
