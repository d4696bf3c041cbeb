"""A store of one's own, the admin of locks, and their history."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import assert_type

from django.contrib import admin
from django.http import HttpRequest

from django_distlock import LockBackendUnavailable
from django_distlock.admin import LockAdmin
from django_distlock.backends.base import BaseLockBackend
from django_distlock.events.history import history
from django_distlock.models import Lock
from django_distlock.records import (
    LOST,
    REFUSED,
    Claim,
    EventKind,
    Grant,
    LockInfo,
    Refusal,
    Released,
    Renewal,
    RenewalOutcome,
)


class FileBackend(BaseLockBackend):
    """Keeps one lock in this process."""

    supports_fencing = True

    def __init__(self, alias: str, *, path: str, ttl: float | None = 60) -> None:
        super().__init__(alias, ttl=ttl)
        self.path = path
        self.claimed: tuple[str, Grant] | None = None

    def acquire(
        self, semaphore: str, owner: str, ttl: float | None, holder: str
    ) -> Grant | Refusal:
        if self.claimed is None:
            raise LockBackendUnavailable("down", reply_lost=True)
        held_by, grant = self.claimed
        return grant if held_by == owner else REFUSED

    def renew(self, leases: Sequence[Claim]) -> dict[str, Renewal]:
        renewed = Renewal(RenewalOutcome.RENEWED, None)
        return {each.owner: renewed if each.token else LOST for each in leases}

    def release(self, lease: Claim, keep: float = 0) -> Released:
        return Released.FREED if lease.remaining else Released.NOT_HELD

    def held(self, prefix: str = "", limit: int | None = None) -> Iterator[LockInfo]:
        yield from ()


@admin.register(Lock, site=admin.AdminSite())
class OperatorsLockAdmin(LockAdmin):
    """The admin's list of locks, with other rules."""

    list_per_page = 50
    refresh_seconds = 2

    def has_force_release_permission(self, request: HttpRequest) -> bool:
        """Let others than Django asks for release locks."""
        return request.user.is_active


def past(semaphore: str) -> None:
    """The recorded history of a lock."""
    events = history("default", semaphore, limit=10)
    assert_type(events[0].kind, EventKind)
    assert_type(events[0].at, datetime)
