"""A number in a database that workers increment under a lock: they read it, then write one more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models, transaction

from django_distlock.fencing import FencedModel, FenceField

if TYPE_CHECKING:
    from collections.abc import Callable

BARE, FENCED, GUARDED = "", "fenced", "guarded"


class Register(FencedModel):
    """The number of a contender. Its lock has the register's name."""

    name = models.CharField(max_length=100, primary_key=True)
    number = models.BigIntegerField(default=0)
    fence = FenceField("<name>")

    class Meta:
        app_label = "benchmarks"


def write_bare(name: str, lease: Any, between: Callable[[], None]) -> None:
    """Increment the register, unprotected; call `between` after it is read."""
    register = Register.objects.get(name=name)
    between()
    Register.objects.filter(name=name).update(number=register.number + 1)


def write_fenced(name: str, lease: Any, between: Callable[[], None]) -> None:
    """Increment the register, if no later lease has written it."""
    register = Register.objects.get(name=name)
    between()
    register.number += 1
    register.save(lease=lease)


def write_guarded(name: str, lease: Any, between: Callable[[], None]) -> None:
    """Increment the register in a transaction, whose commit this package guards."""
    with transaction.atomic():
        write_bare(name, lease, between)


WRITES = {BARE: write_bare, FENCED: write_fenced, GUARDED: write_guarded}
"""How the register is incremented, by what protects it."""
