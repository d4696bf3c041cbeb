"""The two kinds of column, and the index, that the lock tables need and Django doesn't have."""

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F
from django.utils.dateparse import parse_datetime
from django.utils.timezone import get_default_timezone, is_naive, make_aware

if TYPE_CHECKING:
    _CharField = models.CharField[str, str]
    _Field = models.Field[datetime | None, datetime | None]
    _Lookup = models.Lookup[bool]
else:
    _CharField, _Field, _Lookup = models.CharField, models.Field, models.Lookup

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def to_datetime(microseconds: int) -> datetime:
    """Return the aware datetime (UTC) of these microseconds since the epoch."""
    return EPOCH + microseconds * MICROSECOND


def to_microseconds(moment: datetime) -> int:
    """Return the microseconds since the epoch of an aware datetime."""
    return (moment - EPOCH) // MICROSECOND


class SemaphoreField(_CharField):
    """A string that the database compares byte by byte, trailing blanks included.

    On MySQL's family a binary collation is not enough: to `utf8mb4_bin`, `a` equals `a␠`.
    """

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        if connection.vendor == "mysql":
            return f"varbinary({4 * (self.max_length or 0)})"  # UTF-8: up to 4 bytes a character
        if connection.vendor == "postgresql":
            # For "varchar" Django would add a second index, which collation "C" doesn't need.
            return f"character varying({self.max_length})"
        return super().db_type(connection)

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        parameters = super().db_parameters(connection)
        if connection.vendor == "postgresql":
            parameters["collation"] = "C"
        return parameters

    def get_db_prep_value(
        self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False
    ) -> Any:
        value = super().get_db_prep_value(value, connection, prepared)
        if connection.vendor == "mysql" and isinstance(value, str):
            return value.encode()
        return value

    def from_db_value(self, value: Any, *args: object) -> Any:
        return value.decode() if isinstance(value, bytes) else value


class Unreleased(_Lookup):
    """The condition that a lock's row has an owner, as UnreleasedIndex has it.

    A database uses the index only for a query that says exactly the same.
    """

    lookup_name = "unreleased"

    def __init__(self, lhs: Any = F("owner"), rhs: Any = "") -> None:  # noqa: B008 - immutable
        super().__init__(lhs, rhs)

    def as_sql(self, *args: object, **context: object) -> tuple[str, tuple[()]]:
        return "owner <> ''", ()

    def as_mysql(self, *args: object, **context: object) -> tuple[str, tuple[()]]:
        return "unreleased = 1", ()

    def as_oracle(self, *args: object, **context: object) -> tuple[str, tuple[()]]:
        return "owner IS NOT NULL", ()


class UnreleasedIndex(models.Index):
    """Finds held and stale locks, in order, among any number of released ones.

    MySQL's family has no partial index; there it is on a generated column, which no model has. On
    other databases it has all rows.
    """

    def create_sql(self, model: Any, schema_editor: Any, using: str = "", **kwargs: Any) -> Any:
        table, name = map(schema_editor.quote_name, (model._meta.db_table, self.name))
        match schema_editor.connection.vendor:
            case "postgresql" | "sqlite":
                return f"CREATE INDEX {name} ON {table} (semaphore) WHERE owner <> ''"
            case "mysql":
                return (
                    f"ALTER TABLE {table} ADD COLUMN unreleased boolean AS (owner <> '') STORED, "
                    f"ADD INDEX {name} (unreleased, semaphore)"
                )
        return super().create_sql(model, schema_editor, using, **kwargs)

    def remove_sql(self, model: Any, schema_editor: Any, **kwargs: Any) -> Any:
        if schema_editor.connection.vendor != "mysql":
            return super().remove_sql(model, schema_editor, **kwargs)
        table, name = map(schema_editor.quote_name, (model._meta.db_table, self.name))
        return f"ALTER TABLE {table} DROP INDEX {name}, DROP COLUMN unreleased"


class EpochMicrosecondsField(_Field):
    """An aware datetime, stored as microseconds since the epoch in a BIGINT column.

    Neither USE_TZ nor a session's time zone can change its meaning, and a database's clock is one
    expression (see clocks.py). With USE_TZ off, a naive datetime counts as one in TIME_ZONE.
    """

    description = "Date and time, as microseconds since the epoch"

    def get_internal_type(self) -> str:
        return "BigIntegerField"

    def from_db_value(self, value: int | None, *args: object) -> datetime | None:
        return None if value is None else to_datetime(value)

    def to_python(self, value: Any) -> datetime | None:
        if isinstance(value, str):
            try:
                parsed = parse_datetime(value)
            except ValueError:  # well-formed, but there is no 30th of February
                parsed = None
            if parsed is None:
                raise ValidationError(f"{value!r} is not a date and time in ISO 8601.")
            return _in_default_zone(parsed)
        return to_datetime(value) if isinstance(value, int) else value

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        if isinstance(value, str):
            value = self.to_python(value)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime.combine(value, time.min)
        if not isinstance(value, datetime):
            return value
        value = _in_default_zone(value)
        if is_naive(value):
            raise ValueError(f"{self.name} takes an aware datetime, {value!r} has no time zone.")
        return to_microseconds(value)

    def value_to_string(self, obj: models.Model) -> str:
        value = self.value_from_object(obj)
        return "" if value is None else value.isoformat()


def _in_default_zone(moment: datetime) -> datetime:
    """Return the moment in Django's default zone if it is naive and USE_TZ is off."""
    if settings.USE_TZ or not is_naive(moment):
        return moment
    return make_aware(moment, get_default_timezone())
