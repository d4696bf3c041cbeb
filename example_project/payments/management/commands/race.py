"""manage.py race: collect the same payments many times at once, without the lock and with it."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.table import Table

from payments import demo_data, pausing, server, stores
from payments.models import Customer
from payments.racing import Outcome, connect, race, sign_in

WITHOUT, WITH = "without the lock", "with the lock"


def positive(value: str) -> int:
    """Convert an option's value."""
    if (number := int(value)) < 1:
        raise ArgumentTypeError("must be 1 or more")
    return number


class Command(BaseCommand):
    """Run the race."""

    help = "Fire simultaneous requests at both views of a real server, and count collections."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument("--customers", type=positive, default=12, help="default: %(default)s")
        parser.add_argument(
            "--requests",
            type=positive,
            default=12,
            help="simultaneous requests for each customer, default: %(default)s",
        )
        parser.add_argument(
            "--workers", type=positive, default=4, help="gunicorn's processes, default: %(default)s"
        )
        parser.add_argument(
            "--pause",
            action="store_true",
            help="instead, pause a worker for longer than its lease, right before it writes",
        )
        stores.add_option(parser)

    def handle(
        self,
        *,
        customers: int,
        requests: int,
        workers: int,
        pause: bool,
        store: str,
        **options: Any,
    ) -> None:
        """Run the race or the pause, with the locks in the chosen store."""
        with stores.locks_kept_in(store) as place:
            demo_data.prepare(customers)
            if place:
                self.stdout.write(f"Locks are kept in {stores.NAMES[store]}, at {place}")
            if pause:
                self.pause()
            else:
                self.race(customers, requests, workers)

    def pause(self) -> None:
        """Pause a worker, and print what happens."""
        for line in pausing.pause(Customer.objects.filter(invoices__isnull=False)[:1].get()):
            self.stdout.write(line)

    def race(self, customers: int, requests: int, workers: int) -> None:
        """Run the race, print the table, and fail if it does not show what it should."""
        racers = Customer.objects.filter(invoices__isnull=False).distinct()[:customers]
        self.stdout.write(
            f"Collecting from {customers} customers, {requests} requests at once for each ..."
        )
        with server.gunicorn(workers) as address, connect(address) as site:
            sign_in(site)
            outcomes = {
                WITHOUT: race(site, "payments:collect-without-lock", racers, requests),
                WITH: race(site, "payments:collect", racers, requests),
            }
        Console(file=cast("IO[str]", self.stdout)).print(as_table(outcomes))
        for line in surprises(outcomes):
            self.stdout.write(self.style.ERROR(line))
        judge(outcomes[WITHOUT], outcomes[WITH])


def as_table(outcomes: dict[str, Outcome]) -> Table:
    """Lay the outcomes out, a row for each view."""
    processes = set().union(*(outcome.workers for outcome in outcomes.values()))
    table = Table(
        caption="The other requests collected, or found nothing left to collect.\n"
        f"Processes that answered: {len(processes)}"
    )
    table.add_column(no_wrap=True)
    for heading in (
        "requests",
        "customers collected once",
        "customers collected twice or more",
        "requests answered 409",
    ):
        table.add_column(heading, justify="right")
    for name, outcome in outcomes.items():
        cells = (
            len(outcome.answers),
            outcome.collected_once,
            outcome.collected_more,
            outcome.refused,
        )
        table.add_row(name, *map(str, cells))
    return table


def surprises(outcomes: dict[str, Outcome]) -> Iterator[str]:
    """Yield a line for each unexpected outcome, which has no column."""
    for name, outcome in outcomes.items():
        if outcome.not_collected:
            yield f"{name}, customers not collected: {outcome.not_collected}"
        for status, number in outcome.unexpected.items():
            yield f"{name}, answered {status}: {number}"


def judge(unlocked: Outcome, locked: Outcome) -> None:
    """Raise CommandError unless only the race without the lock collected anything twice."""
    if locked.collected_more:
        raise CommandError("Customers were collected twice although the lock was held.")
    if locked.not_collected or locked.unexpected or unlocked.unexpected:
        raise CommandError("The race went wrong: see the lines above.")
    if not unlocked.collected_more:
        raise CommandError("Nobody was collected twice: run it again with more --requests.")
