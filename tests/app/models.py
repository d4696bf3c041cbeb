"""What the tests' views write."""

from django.db import models


class Counter(models.Model):
    """A number that views read and write back: without a lock, increments get lost."""

    value = models.IntegerField(default=0)
