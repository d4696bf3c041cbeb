"""A third party's store, as docs/how-to/write-a-store.md shows it, keeps the contract."""

from __future__ import annotations

import inspect
import re
import sqlite3
import tempfile
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from django.test import SimpleTestCase, override_settings

from django_distlock import LockBackendUnavailable, acquire_lock, lock_backends
from django_distlock.backends.base import (
    AsyncStore,
    BaseLockBackend,
    QueueingStore,
    TransactionalStore,
)
from django_distlock.backends.operations import ListingStore, PausingStore
from django_distlock.contract import LockBackendContract
from django_distlock.records import (
    LOST,
    REFUSED,
    Claim,
    Grant,
    Refusal,
    Released,
    Renewal,
    RenewalOutcome,
)
from tests.support.documentation import DOCUMENTS, example

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.once

PATH = f"{__name__}.FileBackend"
MOST_LINES = 65
MIXINS = AsyncStore, QueueingStore, TransactionalStore


class FileBackend(BaseLockBackend):
    """Keeps locks in an SQLite file, for the processes of one machine."""

    supports_fencing = True

    def __init__(self, alias: str, *, path: str, ttl: float | None = 60) -> None:
        super().__init__(alias, ttl=ttl)
        self.path = path
        with self._transaction() as db:
            db.execute("CREATE TABLE IF NOT EXISTS lock (name PRIMARY KEY, owner, token, ends)")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=2, isolation_level=None)) as db, db:
                db.execute("BEGIN IMMEDIATE")  # one writer at a time: each action is atomic
                yield db
        except sqlite3.Error as error:
            raise LockBackendUnavailable(f"DISTLOCK[{self.alias!r}]: {error}") from error

    def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | Refusal:
        find = "SELECT owner, token, ends FROM lock WHERE name = ?"
        with self._transaction() as db:
            now = time.time()
            held_by, token, ends = db.execute(find, [semaphore]).fetchone() or ("", 0, 0)
            if ends <= now:
                token = max(token + 1, int(now * 1_000_000))
            elif held_by != owner:
                return REFUSED
            ends = now + (ttl or 0)
            db.execute("REPLACE INTO lock VALUES (?, ?, ?, ?)", [semaphore, owner, token, ends])
        return Grant(token, datetime.fromtimestamp(now, UTC), datetime.fromtimestamp(ends, UTC))

    def _end(self, db: sqlite3.Connection, lease: Claim, owner: str, seconds: float) -> Renewal:
        sql = "UPDATE lock SET owner = ?, ends = ? WHERE name = ? AND owner = ? AND ends > ?"
        now = time.time()
        held = db.execute(sql, [owner, now + seconds, lease.semaphore, lease.owner, now]).rowcount
        end = datetime.fromtimestamp(now + seconds, UTC)
        return Renewal(RenewalOutcome.RENEWED, end) if held else LOST

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        with self._transaction() as db:
            return {each.owner: self._end(db, each, each.owner, each.ttl or 0) for each in leases}

    def release(self, lease: Claim, keep: float = 0) -> Released:
        with self._transaction() as db:
            lost = self._end(db, lease, "", keep).lost
        return Released.NOT_HELD if lost else Released.FREED


def stores_in(directory: str) -> dict[str, Any]:
    """Return the setting that has such a store in the directory, under the alias `file`."""
    return {"file": {"BACKEND": PATH, "OPTIONS": {"path": f"{directory}/locks.sqlite3"}}}


class FileTests(LockBackendContract, SimpleTestCase):
    alias = "file"

    @classmethod
    def setUpClass(cls) -> None:
        directory = cls.enterClassContext(tempfile.TemporaryDirectory())
        cls.enterClassContext(override_settings(DISTLOCK=stores_in(directory)))
        super().setUpClass()


def shown() -> str:
    """Return the code of the store in the documentation."""
    text = (DOCUMENTS / "how-to/write-a-store.md").read_text("utf-8")
    [block] = re.findall(
        r"^```python\n(.*?class FileBackend\(.*?)^```$", text, re.DOTALL | re.MULTILINE
    )
    assert isinstance(block, str)
    return block


def test_documentation_shows_the_store_that_is_tested() -> None:
    """All of it, with its imports, in less than a page."""
    assert inspect.getsource(FileBackend) in shown()
    assert len(shown().splitlines()) < MOST_LINES
    assert issubclass(
        example("how-to/write-a-store.md", "1. Write the class").FileBackend, BaseLockBackend
    )


def test_documented_setting_and_tests_are_complete(tmp_path: Path) -> None:
    """Both import the store from a site's module."""
    text = (DOCUMENTS / "how-to/write-a-store.md").read_text("utf-8")
    assert '"BACKEND": "shop.locks.FileBackend"' in text
    assert "class FileBackendTests(LockBackendContract, SimpleTestCase)" in text
    with override_settings(DISTLOCK=stores_in(str(tmp_path))):
        lease = acquire_lock("1234collectPayment", backend="file")
        assert lease is not None
        assert lease.release()


def test_documentation_names_what_a_store_can_declare() -> None:
    """Each capability that is off by default, and each mixin."""
    text = (DOCUMENTS / "how-to/write-a-store.md").read_text("utf-8")
    stores = (BaseLockBackend, ListingStore)
    names = {name for store in stores for name, value in vars(store).items() if value is False}
    names |= {each.__name__ for each in (ListingStore, PausingStore, *MIXINS)}
    assert {"supports_fencing", "tells_holder", "lists_renewals"} <= names
    names -= {"keeps_expired", "supports_listing"}  # explained where the mixin is
    assert {name for name in names if f"`{name}" not in text} == set()


def test_file_that_cannot_be_used_is_unavailable(tmp_path: Path) -> None:
    """Not contended: an outage is not a holder."""
    with (
        override_settings(DISTLOCK=stores_in(str(tmp_path / "nowhere"))),
        pytest.raises(LockBackendUnavailable, match="unable to open database file"),
    ):
        lock_backends["file"]
