"""The tables: locks, pauses, PostgreSQL's queue of waiters, and the history of locks."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from django.db import connections, models
from django.db.models import Case, Q, Value, When
from django.db.models.functions import Now
from django.db.models.lookups import GreaterThanOrEqual
from django.db.models.signals import pre_save
from django.dispatch import receiver
from django.utils.translation import gettext_lazy as _

from django_distlock.arguments import plain
from django_distlock.records import EventKind, LockState

from .clocks import now_expression
from .fields import EpochMicrosecondsField, SemaphoreField, Unreleased, UnreleasedIndex
from .semaphores.validation import MAX_LENGTH, first_after

if TYPE_CHECKING:
    from django.db.models import Expression

    _AnyManager = models.Manager[Any]
else:
    _AnyManager = models.Manager

__all__ = ["Lock", "LockEvent"]

KEPT = "kept"
"""The owner in a row that was released, but can't be acquired until it expires (`min_hold`)."""


class LockQuerySet(models.QuerySet["Lock"]):
    """Locks by their state, according to the database's clock."""

    def with_owner(self) -> Self:
        """Held and stale locks, and some that are free: those that were kept until now."""
        return self.filter(Unreleased())

    def held(self) -> Self:
        """Locks with an unexpired lease."""
        now = self.database_now()
        return self.with_owner().filter(Q(expires_at=None) | Q(expires_at__gt=now))

    def stale(self) -> Self:
        """Locks whose lease expired and was never released: the holder died or took too long."""
        expired = self.with_owner().filter(expires_at__lte=self.database_now())
        return expired.exclude(owner=KEPT)

    def released(self) -> Self:
        """Free locks; their rows keep the token and the time of release."""
        return self.filter(self._released())

    def unreleased(self) -> Self:
        """Locks that are held or stale."""
        return self.with_owner().exclude(self._no_longer_kept())

    def with_prefix(self, prefix: str) -> Self:
        """Locks whose semaphore begins with the prefix, byte by byte.

        A range, not LIKE: SQLite's LIKE takes `A` for `a`, and a range can use the index.
        """
        prefix = plain(prefix)
        locks = self.filter(semaphore__gte=prefix) if prefix else self
        end = first_after(prefix)
        return locks.filter(semaphore__lt=end) if end else locks

    def purgeable(self, older_than: timedelta) -> Self:
        """Locks that were released longer ago, and whose token the clock has passed.

        Without the row, the semaphore's next token is the clock, so the clock has to be greater.
        """
        cutoff = now_expression(connections[self.db], older_than)
        return self.released().filter(expires_at__lt=cutoff, token__lt=self.database_now())

    def with_state(self) -> Self:
        """Annotate each lock with `state` and `kept`, and the database's time, `seen_at`."""
        now = self.database_now()
        return self.annotate(
            seen_at=now,
            kept=Case(When(owner=KEPT, expires_at__gt=now, then=True), default=False),
            state=Case(
                When(self._released(), then=Value(LockState.RELEASED.value)),
                When(expires_at__lte=now, then=Value(LockState.STALE.value)),
                default=Value(LockState.HELD.value),
            ),
        )

    def mark_released(self) -> bool:
        """Release these locks, whatever their owner; return whether there was one."""
        return self.update(owner="", expires_at=self.database_now()) > 0

    def _released(self) -> Q:
        return Q(owner="") | self._no_longer_kept()

    def _no_longer_kept(self) -> Q:
        return Q(owner=KEPT, expires_at__lte=self.database_now())

    def database_now(self) -> "Expression":
        """Return the clock of the database that this query runs on, as an expression."""
        return now_expression(connections[self.db])


_Manager = models.Manager.from_queryset(LockQuerySet)


def uncached(rows: Any) -> Any:
    """Return the rows by a query with a clock in it.

    The condition holds for each row. It makes django-cachalot ask the database every time.
    """
    return rows.filter(GreaterThanOrEqual(Now(), Now()))


class LockManager(_Manager["Lock"]):
    """The default manager: its queries are never cached, since stores change rows unseen."""

    def get_queryset(self) -> LockQuerySet:
        locks: LockQuerySet = uncached(super().get_queryset())
        return locks


class Lock(models.Model):
    """A lock, in the table of a database store. A released lock keeps its row, which has the token.

    - `semaphore`: the lock's name.
    - `owner`: a secret, with which the lock can be released; empty for a released lock.
    - `token`: the fencing token of the last grant.
    - `holder`: the last holder, for people.
    - `acquired_at`, `renewed_at`: when it was granted, and renewed last, if it was.
    - `expires_at`: when the lease ends, or when the lock was released; None if there is no end.
    - `queued_until`: until when the lock is for the waiters in its queue; unused on PostgreSQL.

    Datetimes are aware, by the database's clock.
    """

    semaphore = SemaphoreField(_("semaphore"), max_length=MAX_LENGTH, primary_key=True)
    # Not serialized, because it is secret: a fixture loads each lock as released.
    owner = models.CharField(_("owner"), max_length=32, blank=True, default="", serialize=False)
    token = models.BigIntegerField(_("token"), default=0)
    holder = models.TextField(_("holder"), blank=True, default="")
    acquired_at = EpochMicrosecondsField(_("acquired at"), null=True, blank=True)
    renewed_at = EpochMicrosecondsField(_("renewed at"), null=True, blank=True)
    expires_at = EpochMicrosecondsField(_("expires at"), null=True, blank=True)
    queued_until = EpochMicrosecondsField(null=True, editable=False, serialize=False)

    if TYPE_CHECKING:  # with_state() adds them
        state: str
        kept: bool
        seen_at: datetime

    objects = LockManager()

    class Meta:
        verbose_name = _("lock")
        verbose_name_plural = _("locks")
        ordering = ["semaphore"]
        indexes = [UnreleasedIndex(fields=["semaphore"], name="distlock_unreleased_locks")]
        permissions = [("force_release_lock", "Can force-release lock")]

    def __str__(self) -> str:
        return self.semaphore


@receiver(pre_save, sender=Lock)
def load_as_released(*, instance: Lock, raw: bool, **kwargs: Any) -> None:
    """Remove the owner that an old fixture may have: its holder is gone."""
    if raw:
        instance.owner = ""


class NotDumpedManager(_AnyManager):
    """The default manager of rows that are outdated in a second: `dumpdata` finds none."""

    def get_queryset(self) -> models.QuerySet[Any]:
        return super().get_queryset().none()


class PauseManager(_AnyManager):
    """Pauses, by queries that are never cached, since a pause ends by itself."""

    def get_queryset(self) -> models.QuerySet[Any]:
        pauses: models.QuerySet[Any] = uncached(super().get_queryset())
        return pauses


class LockPause(models.Model):
    """A pause: nothing is granted whose semaphore begins with the prefix; see records.Pause."""

    prefix = SemaphoreField(max_length=MAX_LENGTH, primary_key=True, blank=True)
    since = EpochMicrosecondsField()
    until = EpochMicrosecondsField(null=True)
    reason = models.TextField()
    by = models.TextField()

    dumped = NotDumpedManager()
    objects = PauseManager()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.prefix


class WaitingProcess(models.Model):
    """A process that waits for locks on PostgreSQL; it is alive while `seen_at` is recent."""

    id = models.BigIntegerField(primary_key=True)
    seen_at = EpochMicrosecondsField()

    dumped = NotDumpedManager()
    objects = models.Manager()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.id:x}"


class LockWaiter(models.Model):
    """A waiter for a lock; waiters are served in the order of their ids.

    On PostgreSQL, `number` identifies it within its `process`, and an offer of the lock deletes the
    row. Elsewhere the waiter is alive while `seen_at` is recent; the first one of each process has
    a row.
    """

    id = models.BigAutoField(primary_key=True)
    semaphore = SemaphoreField(max_length=MAX_LENGTH)
    owner = models.CharField(max_length=32, serialize=False)
    holder = models.TextField()
    process = models.BigIntegerField()
    number = models.BigIntegerField()
    seen_at = EpochMicrosecondsField(null=True)

    dumped = NotDumpedManager()
    objects = models.Manager()

    class Meta:
        default_permissions = ()
        indexes = [models.Index(fields=["semaphore", "id"], name="distlock_waiters_in_order")]

    def __str__(self) -> str:
        return f"{self.semaphore}, {self.holder}"


EVENT_KINDS = {
    EventKind.ACQUIRED.value: _("acquired"),
    EventKind.RELEASED.value: _("released"),
    EventKind.LOST.value: _("lost"),
    EventKind.CONTENDED.value: _("contended"),
    EventKind.FORCE_RELEASED.value: _("force-released"),
}


class LockEvent(models.Model):
    """A recorded event: something that happened to a lock of any store.

    - `backend`: the alias of the store in `DISTLOCK`.
    - `semaphore`: the lock's name.
    - `kind`: what happened; see `EventKind`.
    - `at`: when it happened, aware. Rows are written a little later, so ids are in another order.
    - `token`: the fencing token of the lease; None if there is none.
    - `holder`: the holder, for people; of a refusal, the thread or task that was refused.
    - `waited`, `held`: microseconds from the call to the grant or refusal, and from it to the end.
    - `by`: the operator of a forced release.
    - `reason`: why a lease was lost, or an acquisition refused.
    """

    id = models.BigAutoField(primary_key=True)
    backend = models.CharField(_("backend"), max_length=255)
    semaphore = SemaphoreField(_("semaphore"), max_length=MAX_LENGTH)
    kind = models.CharField(_("kind"), max_length=16, choices=EVENT_KINDS)
    at = EpochMicrosecondsField(_("at"))
    token = models.BigIntegerField(_("token"), null=True)
    holder = models.TextField(_("holder"), default="")
    waited = models.BigIntegerField(_("waited"), null=True)
    held = models.BigIntegerField(_("held"), null=True)
    by = models.TextField(_("by"), default="")
    reason = models.TextField(_("reason"), default="")

    dumped = NotDumpedManager()
    objects = models.Manager()

    class Meta:
        verbose_name = _("lock event")
        verbose_name_plural = _("lock events")
        default_permissions = ("view",)
        indexes = [
            models.Index(
                fields=["backend", "semaphore", "at", "id"], name="distlock_events_of_lock"
            ),
            models.Index(fields=["at"], name="distlock_events_by_age"),
        ]

    def __str__(self) -> str:
        return f"{self.semaphore}, {self.kind}"
