"""A lock server for as long as a command runs."""

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from django_distlock import InvalidLockBackend, LockBackendUnavailable
from django_distlock.backends.server import ServerBackend
from payments.processes import keeping_locks


@contextmanager
def running() -> Iterator[dict[str, str]]:
    """Run a server until the block ends. Yield the OPTIONS of its clients."""
    with TemporaryDirectory(prefix="example-locks-") as name:
        directory = Path(name)
        socket, secret_file = directory / "socket", directory / "secret"
        secret_file.touch(mode=0o600)
        secret_file.write_text(secrets.token_urlsafe(32))
        options = {"address": f"unix:{socket}", "secret_file": str(secret_file)}
        command = [
            *(sys.executable, "manage.py", "run_lock_server", "--no-color"),
            *("--unix", str(socket)),
            *("--secret-file", str(secret_file)),
            *("--state", str(directory / "state.json")),
            "--no-grace",  # no earlier server could have granted leases
        ]

        def answers(_pid: int) -> bool:
            try:
                backend = ServerBackend("example", **options)
                backend.status()
            except (InvalidLockBackend, LockBackendUnavailable):
                return False
            backend.close()
            return True

        with keeping_locks("The lock server", command, directory / "log", answers):
            yield options
