"""Values and callables for the tests of templates."""

from __future__ import annotations

from enum import IntEnum
from uuid import UUID

from django_distlock.semaphores.templates import SemaphoreTemplate


class Level(IntEnum):
    TOP = 7


class Shouting(str):
    """A str whose text, by str(), is another than its value."""

    __slots__ = ()

    def __str__(self) -> str:
        return "SHOUTED"


def collect(customer_id: int, *, invoice: str = "first") -> None:
    """Stand for a function that takes one argument either way, and one by name."""


def render(text: str, **arguments: object) -> str:
    return SemaphoreTemplate(text).render(arguments)


IDENTITY = UUID("12345678-9abc-def0-1234-56789abcdef0")
