"""The database backend's pauses: rows of a table that each attempt to acquire looks at."""

from datetime import timedelta
from operator import methodcaller
from typing import Any

from django.db import IntegrityError, connections, transaction
from django.db.models import Q, QuerySet

from django_distlock.backends.operations import PausingStore, validate_pause
from django_distlock.clocks import now_expression
from django_distlock.models import LockPause
from django_distlock.records import Pause
from django_distlock.semaphores.validation import validate_prefix

from .errors import Conflict
from .operating import OperatingDatabaseBackend


class PausingDatabaseBackend(OperatingDatabaseBackend, PausingStore):
    """Part of DatabaseBackend."""

    def pause(
        self, prefix: str, seconds: float | None = None, *, reason: str = "", by: str = ""
    ) -> Pause:
        prefix, seconds, reason, by = validate_pause(prefix, seconds, reason, by)
        texts = self._run(lambda sql: sql.fitting({"reason": reason, "by": by}))
        paused = self._use_orm(lambda: self._write(prefix, seconds, **texts))
        self._run(methodcaller("wait_for_attempts"))
        return paused

    def _write(self, prefix: str, seconds: float | None, **texts: str) -> Pause:
        """Replace the pause of this prefix; delete those that have ended."""
        connection = connections[self.using]
        since = now_expression(connection)
        until = None if seconds is None else now_expression(connection, timedelta(seconds=-seconds))
        pauses = LockPause.objects.using(self.using)
        try:
            with transaction.atomic(using=self.using):
                # The first statement writes, because SQLite can't wait to write after a read.
                pauses.filter(Q(prefix=prefix) | Q(until__lte=since)).delete()
                values: dict[str, Any] = {"since": since, "until": until, **texts}
                pauses.create(prefix=prefix, **values)
        except IntegrityError as error:  # another operator did the same at this moment
            raise Conflict(str(error)) from error
        return _pause(pauses.get(prefix=prefix))

    def resume(self, prefix: str) -> bool:
        prefix = validate_prefix(prefix)
        return self._use_orm(lambda: self._delete(prefix))

    def _delete(self, prefix: str) -> bool:
        with transaction.atomic(using=self.using):  # so that a failure is not the caller's
            return self._in_force().filter(prefix=prefix).delete()[0] > 0

    def pauses(self) -> list[Pause]:
        return self._use_orm(lambda: [_pause(row) for row in self._in_force().order_by("prefix")])

    def _in_force(self) -> QuerySet[LockPause]:
        now = now_expression(connections[self.using])
        return LockPause.objects.using(self.using).filter(Q(until=None) | Q(until__gt=now))


def _pause(row: LockPause) -> Pause:
    assert row.since is not None  # noqa: S101 - for the type checker: the column is not null
    return Pause(row.prefix, row.since, row.until, row.reason, row.by)
