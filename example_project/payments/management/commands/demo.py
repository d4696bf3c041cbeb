"""manage.py demo: prepare everything, run the race, then serve the site."""

from argparse import ArgumentParser
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connections

from payments import collecting, demo_data, server, stores
from payments.models import Customer

WORKERS = 4


class Command(BaseCommand):
    """Show the example."""

    help = "Prepare the database, run the race, then serve the site until Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument(
            "--exit-after-race", action="store_true", help="end after the race, serve nothing"
        )
        parser.add_argument(
            "--port", type=int, default=8000, help="default: %(default)s; 0 means any free one"
        )
        stores.add_option(parser)

    def handle(self, *, exit_after_race: bool, port: int, store: str, **options: Any) -> None:
        """Prepare, race and serve."""
        if exit_after_race:
            self.race(store)
            return
        # The port first of all, so that a port in use is reported early.
        with server.listen(port) as listener, stores.locks_kept_in(store) as place:
            self.race(store)
            collecting.reset(Customer.objects.all())
            connections.close_all()
            self.stdout.write(
                f"\nThe site:  {server.url(listener)}\n"
                f"Sign in:   {demo_data.USERNAME}, password {demo_data.PASSWORD}"
            )
            if place:
                self.stdout.write(f"Locks:     {place}")
            self.stdout.write("Stop it:   Ctrl-C")
            self.stdout.flush()
            serve = server.serve if place else server.become_gunicorn
            serve(listener, WORKERS)

    def race(self, store: str) -> None:
        """Prepare the database and run the race."""
        call_command("race", workers=WORKERS, store=store, stdout=self.stdout)
