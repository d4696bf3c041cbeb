"""The two clocks: this machine's monotonic clock for leases, the database's clock for its locks.

The database's clock has to be volatile: read when it is evaluated, not when the statement or the
transaction began. Otherwise a statement that waited for a row would use an outdated time.
"""

import time
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import NotSupportedError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Expression, Value
from django.db.models.functions import Now
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLCompiler
from django.utils.timezone import is_naive

from .fields import MICROSECOND, EpochMicrosecondsField

if hasattr(time, "CLOCK_BOOTTIME"):

    def monotonic() -> float:
        """Return seconds that never step back, and that count while the machine is suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    monotonic = time.monotonic


NOW: Final = {
    "postgresql": "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    # unixepoch('subsec') is silently NULL before SQLite 3.42. The clock counts milliseconds,
    # rounded down. Days in a double are exact to 0.02 ms, so round() restores the millisecond.
    "sqlite": "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000",
    # UTC_TIMESTAMP is the start of the statement, and SYSDATE follows the session's time zone.
    "mysql": (
        "(timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6))"
        " + timestampdiff(MICROSECOND, now(6), sysdate(6)))"
    ),
}


class DatabaseNow(Expression):
    """The database's clock, or its time that long `ago`, for the vendors in NOW.

    It is read once in a statement, not for each row: of 10,000 rows, that took most of the time.
    """

    def __init__(self, ago: timedelta = timedelta()) -> None:
        super().__init__(output_field=EpochMicrosecondsField())
        self.ago = ago

    def as_sql(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any
    ) -> tuple[str, tuple[()]]:
        return f"(SELECT {NOW[connection.vendor]} - {self.ago // MICROSECOND})", ()


def now_expression(connection: BaseDatabaseWrapper, ago: timedelta = timedelta()) -> Expression:
    """Return the clock as an expression; for a vendor not in NOW, the current time as a value."""
    if connection.vendor in NOW:
        return DatabaseNow(ago)
    return Value(read_clock(connection) - ago, output_field=EpochMicrosecondsField())


def read_clock(connection: BaseDatabaseWrapper) -> datetime:
    """Return the time of any database that Django supports, by a query of its own."""
    compiler = connection.ops.compiler("SQLCompiler")(Query(None), connection, None)
    now = Now()
    sql, params = compiler.compile(now)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {sql}{connection.features.bare_select_suffix}", params)
        value: datetime
        (value,) = cursor.fetchone()
    for convert in [*connection.ops.get_db_converters(now), *now.get_db_converters(connection)]:
        value = convert(value, now, connection)
    if is_naive(value):
        raise NotSupportedError(
            f"{connection.vendor}'s clock is read through Django, which needs USE_TZ = True."
        )
    return value
