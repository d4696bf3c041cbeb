"""`manage.py collect_payment`: one at a time for a customer."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_distlock import distributed_lock


def refuse(command: BaseCommand, customer_id: int, **options: Any) -> None:
    """Raise an error for the caller of a contended run."""
    raise CommandError(f"Customer {customer_id} is being collected from.", returncode=3)


class Command(BaseCommand):
    """Collect, and wait for a line that says it is done."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take a customer."""
        parser.add_argument("customer_id", type=int)
        parser.add_argument("--wait", action="store_true")

    @distributed_lock("<customer_id>collectPayment", on_conflict=refuse)
    def handle(self, *args: Any, **options: Any) -> None:
        """Collect."""
        self.stdout.write("collecting")
        self.stdout.flush()
        if options["wait"]:
            sys.stdin.readline()
