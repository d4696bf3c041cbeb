"""Gunicorn's settings, for the race and for the site alike."""

import os

wsgi_app = "example.wsgi"
preload_app = True  # once for all workers, which start sooner
# Browsers open connections ahead of need, and a sync worker would sit waiting on such a one.
worker_class = "gthread"
threads = 4
loglevel = "warning"
control_socket_disable = True


def post_worker_init(worker: object) -> None:
    """Report a ready worker to the process that started gunicorn, if it asked for that."""
    if ready_fd := os.environ.get("GUNICORN_READY_FD"):
        os.write(int(ready_fd), b".")
