"""Fencing in the ORM: who held a row's lock before its last writer did writes it no more."""

from .fields import FenceField
from .models import FencedModel
from .querysets import FencedQuerySet

__all__ = ["FenceField", "FencedModel", "FencedQuerySet"]
