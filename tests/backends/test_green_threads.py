"""Green threads: gevent and eventlet replace or remove what waits for sockets."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.children import tied
from tests.support.databases import committed
from tests.support.processes import worker_environment

pytestmark = pytest.mark.once

LIBRARIES = [
    "none",
    *(pytest.param(each, marks=pytest.mark.needs(each)) for each in ("eventlet", "gevent")),
]
STORES = ["postgresql", "mariadb", "redis", "memcached", "lock_server", "lock_server_tls"]


@committed
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    "alias", [pytest.param(each, marks=pytest.mark.needs(each)) for each in STORES]
)
def test_store_works_with_green_threads(library: str, alias: str) -> None:
    """With each library, and without one but with select.poll() removed, as by eventlet."""
    done = subprocess.run(
        tied([sys.executable, "-m", "tests.support.green_threads", library, alias]),
        env=worker_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr
