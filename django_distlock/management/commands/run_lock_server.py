"""Run the dedicated process that keeps locks in memory, or print what a running one holds."""

import os
import ssl
import sys
from argparse import ArgumentParser
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_distlock.arguments import format_duration, printable
from django_distlock.backends.server import ServerBackend
from django_distlock.exceptions import InvalidLockBackend, LockBackendUnavailable
from django_distlock.management.configured_server import configured_server
from django_distlock.management.output.text import holder_of, pause_lines
from django_distlock.server.addresses import DEFAULT, Address, parse_address, unix_address
from django_distlock.server.limits import Limits
from django_distlock.server.path_lock import InUse
from django_distlock.server.running import ServerConfig, run
from django_distlock.server.saved_state import StateFile, Unreadable, default_path
from django_distlock.server.secret import read_secret

LISTED = 20
"""How many locks --status lists."""
STATUS_TIMEOUT = 10.0
"""Seconds that a server has to answer --status: longer than usual, as only a person waits."""
LIMITS = {
    "max_ttl": "the longest lease, in seconds; after a crash nothing is granted for that long",
    "max_frame": "the longest request, in bytes",
    "max_connections": "the most open connections",
    "max_locks": "the most locks",
    "max_waiters": "the most waiters for one lock",
    "max_all_waiters": "the most waiters for all locks together",
    "idle": "close a connection after this many seconds without a request",
    "handshake": "seconds that a client has to prove that it knows the secret",
}


class Command(BaseCommand):
    """Serve locks until SIGTERM or SIGINT."""

    help = (
        "Runs the lock server, which keeps locks in memory for a ServerBackend in DISTLOCK. Its "
        "address and secret are those of the backend, unless the options give others. SIGTERM or "
        "SIGINT stops the server, which saves its locks for the next one. Needs no database."
    )

    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        address = parser.add_mutually_exclusive_group()
        address.add_argument("--bind", metavar="HOST:PORT", help=f"listen here, such as {DEFAULT}")
        address.add_argument("--unix", metavar="PATH", help="listen at this unix socket instead")
        parser.add_argument(
            "--backend",
            metavar="ALIAS",
            help="the alias in DISTLOCK, if that has several ServerBackends",
        )
        parser.add_argument("--secret-file", metavar="PATH", help="a file with the secret")
        parser.add_argument(
            "--tls-cert", metavar="PATH", help="a file with the certificate and its chain"
        )
        parser.add_argument("--tls-key", metavar="PATH", help="a file with its private key")
        parser.add_argument(
            "--state",
            metavar="PATH",
            help="the file in which the locks are saved (default: one named after the address, in "
            "$STATE_DIRECTORY, or in django_distlock in $XDG_STATE_HOME or ~/.local/state)",
        )
        parser.add_argument(
            "--no-grace",
            action="store_true",
            help="grant at once, even without saved locks: only if no earlier lease can exist",
        )
        parser.add_argument(
            "--status", action="store_true", help="print what the running server holds, and exit"
        )
        parser.add_argument(
            "--tls-ca",
            metavar="PATH",
            help="with --status by TLS: a file with the certificate authorities to trust (default: "
            "those in DISTLOCK)",
        )
        for field in fields(Limits):
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=float if field.type is float else int,
                metavar="SECONDS" if field.type is float else "NUMBER",
                default=field.default,
                help=f"{LIMITS[field.name]} (default: %(default)s)",
            )

    def handle(self, **options: Any) -> None:
        try:
            has_address = options["bind"] is not None or options["unix"] is not None
            needed = not has_address or options["secret_file"] is None
            configured = configured_server(options["backend"], needed=needed)
            address = _address(options, configured)
            if options["status"]:
                self._print_status(_client(address, options, configured))
            else:
                run(_config(address, options, configured), self._tell)
        except Unreadable as error:
            raise CommandError(
                f"{error}. This file says which leases may be in force: repair it, or remove it. "
                "Without it, nothing is granted for --max-ttl seconds: give no less than before."
            ) from error
        except (InvalidLockBackend, LockBackendUnavailable, InUse, OSError, ValueError) as error:
            raise CommandError(str(error)) from error

    def _tell(self, text: str) -> None:
        """Print a line of the server, which serves on if the reader of its output has left."""
        try:
            self._print(text)
        except BrokenPipeError:
            # Python would flush the line at its end, and fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _print(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()

    def _print_status(self, backend: ServerBackend) -> None:
        status = backend.status()
        limits = status["limits"]
        up = format_duration(timedelta(seconds=status["up"]))
        self._print(
            f"The lock server at {backend.address} has been up for {up}.\n"
            f"locks: {status['locks']} of {limits['max_locks']}\n"
            f"waiters: {status['waiters']} of {limits['max_all_waiters']}, "
            f"up to {limits['max_waiters']} for a lock\n"
            f"connections: {status['connections']} of {limits['max_connections']}\n"
            f"leases last {limits['max_ttl']:.10g} seconds at most"
        )
        if status["grace"]:
            self._print(
                f"nothing is granted for {status['grace']:.10g} seconds more, after a restart"
            )
        if pauses := backend.pauses():
            self._print("\n".join(pause_lines(pauses)))
        listed = list(backend.held(limit=LISTED))
        for lock in listed:
            left = format_duration((lock.expires_at or lock.seen_at) - lock.seen_at)
            self._print(f"{printable(lock.semaphore)}: {holder_of(lock)}, {left} left")
        if len(listed) == LISTED < status["locks"]:
            self._print(f"and {status['locks'] - LISTED} more")


def _config(
    address: Address, options: dict[str, Any], configured: ServerBackend | None
) -> ServerConfig:
    state = options["state"]
    return ServerConfig(
        address=address,
        secret=_secret(options, configured),
        limits=Limits(**{field.name: options[field.name] for field in fields(Limits)}),
        state=StateFile(default_path(address) if state is None else Path(state).absolute()),
        tls=_tls(address, options, configured),
        no_grace=options["no_grace"],
    )


def _address(options: dict[str, Any], configured: ServerBackend | None) -> Address:
    if options["unix"] is not None:
        return unix_address(options["unix"])
    if options["bind"] is not None:
        return parse_address(options["bind"])
    if configured is None:
        raise ValueError(
            "DISTLOCK has no ServerBackend with an address and a secret: "
            f"give --bind {DEFAULT} or --unix, and --secret-file."
        )
    return configured.address


def _secret(options: dict[str, Any], configured: ServerBackend | None) -> bytes:
    if options["secret_file"] is not None:
        try:
            return read_secret(options["secret_file"])
        except (OSError, ValueError) as error:
            raise ValueError(f"--secret-file: {error}") from error
    if configured is None:
        raise ValueError("Give --secret-file: DISTLOCK has no ServerBackend with the secret.")
    return configured.secret


def _tls(
    address: Address, options: dict[str, Any], configured: ServerBackend | None
) -> ssl.SSLContext | None:
    certificate, key = options["tls_cert"], options["tls_key"]
    if (certificate is None) is not (key is None):
        raise ValueError("--tls-cert and --tls-key belong together.")
    if certificate is None:
        if not address.is_local:
            raise ValueError(f"{address} is not on this machine: give --tls-cert and --tls-key.")
        if configured is not None and configured.tls and configured.address == address:
            raise ValueError(
                f"DISTLOCK[{configured.alias!r}] uses TLS: give --tls-cert and --tls-key."
            )
        return None
    if address.path:
        raise ValueError("A unix socket needs no TLS: leave out --tls-cert and --tls-key.")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # it doesn't say which of the two files
        raise ValueError(f"--tls-cert {certificate}, --tls-key {key}: {error}") from error
    return context


def _client(
    address: Address, options: dict[str, Any], configured: ServerBackend | None
) -> ServerBackend:
    """Return a backend that asks the server at this address, for --status."""
    arguments: dict[str, Any] = {
        "secret": _secret(options, configured),
        "store_timeout": STATUS_TIMEOUT,
    }
    if configured is not None and not address.path:
        arguments |= {"tls": configured.tls, "tls_ca": configured.tls_ca}
    if options["tls_ca"] is not None:
        arguments |= {"tls_ca": options["tls_ca"]}
    try:
        return ServerBackend("status", address=str(address), **arguments)
    except InvalidLockBackend as error:
        reason = str(error).partition(": ")[2]  # without the alias, which is this command's
        raise ValueError(f"--status: {reason}") from error
