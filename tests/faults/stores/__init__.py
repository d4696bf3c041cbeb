"""The stores that `python -m tests.faults --store NAME` knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.stores.lock_server import LockServer
from tests.faults.stores.mariadb import MariaDB
from tests.faults.stores.memcached import Memcached
from tests.faults.stores.postgresql import PostgreSQL
from tests.faults.stores.redis import RedisEverySecond, RedisInMemory, RedisServer
from tests.faults.stores.redis_cluster import ClusterOfThree
from tests.faults.stores.redis_replica import RedisWithReplica
from tests.faults.stores.sqlite import SQLite

if TYPE_CHECKING:
    from tests.faults.environment import Environment

STORES: dict[str, type[Environment]] = {
    "postgresql": PostgreSQL,
    "mariadb": MariaDB,
    "sqlite": SQLite,
    "redis": RedisServer,
    "redis_everysec": RedisEverySecond,
    "redis_memory": RedisInMemory,
    "redis_replica": RedisWithReplica,
    "redis_cluster": ClusterOfThree,
    "lock_server": LockServer,
    "memcached": Memcached,
}
