"""A worker that is paused for longer than its lease, and its late write."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.core.management import CommandError

from payments import collecting
from payments.models import Customer, Invoice, Payment

TTL = 2  # seconds
TIMEOUT = 60  # seconds


def pause(customer: Customer) -> Iterator[str]:
    """Pause a worker while it collects, collect by another one, and yield the events as lines."""
    collecting.reset(Customer.objects.filter(pk=customer.pk))
    with started(customer, "--ttl", str(TTL), "--pause") as first:
        yield f"First worker:  {read_line(first)}"
        _, status = os.waitpid(first.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            raise CommandError("The first worker ended before it was paused.")
        yield f"               is paused right before it writes; its lease ends in {TTL} seconds"
        with started(customer) as second:
            holder = read_line(second)
            yield f"Second worker: {holder}"
            yield f"               {read_line(second)}"
            if second.wait(TIMEOUT):
                raise CommandError("The second worker failed.")
        first.send_signal(signal.SIGCONT)
        _, error = first.communicate(timeout=TIMEOUT)
    # Its log line about the lost lease comes from another thread, before or after this one.
    _, _, refusal = error.rpartition("CommandError: ")
    refusal, _, _ = refusal.partition("\n")
    yield f"First worker:  goes on. {refusal}"
    for invoice in Invoice.objects.filter(customer=customer):
        times = Payment.objects.filter(invoice=invoice).count()
        yield f"Invoice {invoice}: its row has the fence {invoice.fence}; collected {times} time(s)"
        if times != 1 or not holder.endswith(f" {invoice.fence}"):
            raise CommandError("The second worker's write should have been the last one.")
    if "a later holder" not in refusal:
        raise CommandError("The first worker's write should have been refused by the row.")


@contextmanager
def started(customer: Customer, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run `manage.py collect`, and end it with the block, paused or not."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", "collect", "--no-color", str(customer.pk), *options],
        cwd=settings.BASE_DIR,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_line(process: subprocess.Popen[str]) -> str:
    """Return the worker's next line."""
    assert process.stdout is not None
    if line := process.stdout.readline():
        return line.strip()
    _, error = process.communicate(timeout=TIMEOUT)
    raise CommandError(f"A worker failed: {error}")
