"""Requests to the operating system: the limit of open files, and systemd's notifications."""

import os
import resource
import socket

from django_distlock.logs import room_logger

logger = room_logger("server")


def allow_files(number: int) -> None:
    """Raise this process's limit of open files; ValueError if the system allows fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != soft < number:
        if resource.RLIM_INFINITY != hard < number:
            raise ValueError(
                f"So many connections need {number} open files, but the system allows {hard}: lower"
                " --max-connections, or raise that (ulimit -n, LimitNOFILE= in a systemd unit)."
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


def notify_systemd(state: str) -> None:
    """Send a state, as sd_notify(3) does, if systemd started this process.

    https://www.freedesktop.org/software/systemd/man/sd_notify
    """
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    if path.startswith("@"):
        path = "\0" + path[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.setblocking(False)
        try:
            notified.connect(path)
            notified.sendall(state.encode())
        except OSError as error:
            logger.warning(
                "%s can't be sent to NOTIFY_SOCKET: %s", state, error, extra={"reason": str(error)}
            )
