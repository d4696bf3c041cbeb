"""A check for django-health-check 4: `pip install "django-distlock[health]"`."""

import dataclasses

from . import acheck

try:
    from health_check.base import HealthCheck
    from health_check.exceptions import ServiceUnavailable
except ImportError as error:
    raise ImportError(
        'This needs django-health-check: pip install "django-distlock[health]".'
    ) from error

__all__ = ["LockStore"]


@dataclasses.dataclass
class LockStore(HealthCheck):  # type: ignore[misc]
    """A check of a store for django-health-check. `alias` is the store's in `DISTLOCK`."""

    alias: str = "default"

    async def run(self) -> None:
        """Raise ServiceUnavailable if the store is down.

        The reason, which may name hosts, goes to the log; clients see only which store it is.
        """
        health = await acheck(self.alias)
        if not health:
            raise ServiceUnavailable(f"DISTLOCK[{self.alias!r}] is down") from RuntimeError(
                health.detail
            )
