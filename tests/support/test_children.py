"""A process ends with the process that started it, however that ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.needs("redis")

STARTS_A_SERVER = """
from tests.support.redis_servers import start_redis

server = start_redis()
print(server.executor.process.pid, server.directory, flush=True)
input()
"""


def test_server_of_a_run_that_is_killed_ends() -> None:
    """Even if nothing of the run is left to stop it."""
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_A_SERVER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        pid, directory = run.stdout.readline().split()
        server = psutil.Process(int(pid))
        run.kill()
    try:
        server.wait(60)
    finally:
        with suppress(psutil.NoSuchProcess):  # as it should be
            server.kill()
        shutil.rmtree(directory)
