"""manage.py collect: collect what one customer owes, as a nightly job would."""

import os
import signal
from argparse import ArgumentParser
from contextlib import ExitStack
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from django_distlock import LockLost, distributed_lock
from payments.collecting import collect_payment
from payments.models import Customer


class Command(BaseCommand):
    """Collect, under the same lock as the site."""

    help = "Collect what one customer owes, waiting while another process does."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument("customer", type=int)
        parser.add_argument(
            "--ttl", type=float, default=60, help="seconds of the lease, default: %(default)s"
        )
        parser.add_argument(
            "--pause",
            action="store_true",
            help="stop this process after its last check, right before it writes",
        )

    def handle(self, *, customer: int, ttl: float, pause: bool, **options: Any) -> None:
        """Collect under the lease, or say why not."""
        semaphore = f"{customer}collectPayment"
        try:
            with distributed_lock(semaphore, timeout=60, ttl=ttl, label="collect") as lease:
                self.stdout.write(f"process {os.getpid()} holds {semaphore}, token {lease.token}")
                self.stdout.flush()
                with ExitStack() as paused:
                    if pause:
                        paused.enter_context(connection.execute_wrapper(stop_before_write))
                    collected = collect_payment(Customer.objects.get(pk=customer), lease)
        except LockLost as error:
            raise CommandError(str(error)) from error
        self.stdout.write("collected" if collected else "already collected")


def stop_before_write(execute: Any, sql: str, *arguments: Any) -> Any:
    """Stop this process right before its first UPDATE is sent, after all its own checks."""
    if sql.startswith("UPDATE"):
        os.kill(os.getpid(), signal.SIGSTOP)
    return execute(sql, *arguments)
