"""Fencing in the ORM: a row refuses a writer whose lock has had a later holder."""

from .fields import FenceField
from .models import FencedModel
from .querysets import FencedQuerySet

__all__ = ["FenceField", "FencedModel", "FencedQuerySet"]
