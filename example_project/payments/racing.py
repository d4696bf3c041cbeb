"""Many simultaneous real requests to collect the same payments, and their outcome."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import NamedTuple

import httpx
from django.core.management import CommandError
from django.db.models import Count
from django.urls import reverse

from payments import collecting
from payments.demo_data import PASSWORD, USERNAME
from payments.middleware import WORKER_HEADER
from payments.models import Customer, Invoice

TIMEOUT = 60  # seconds, for an answer


class Answer(NamedTuple):
    """The answer to one request, and the process that gave it."""

    status: str
    worker: str | None


class Outcome(NamedTuple):
    """All answers of a race, and how many customers were collected how often."""

    answers: list[Answer]
    customers_by_times_collected: Counter[int]

    @property
    def collected_once(self) -> int:
        """Return the number of customers who paid what they owe."""
        return self.customers_by_times_collected[1]

    @property
    def collected_more(self) -> int:
        """Return the number of customers who paid twice or more often."""
        return sum(n for times, n in self.customers_by_times_collected.items() if times > 1)

    @property
    def not_collected(self) -> int:
        """Return the number of customers who did not pay."""
        return self.customers_by_times_collected[0]

    @property
    def refused(self) -> int:
        """Return the number of answers that said 409: somebody else holds the lock."""
        return sum(answer.status == "409" for answer in self.answers)

    @property
    def unexpected(self) -> Counter[str]:
        """Return the unexpected answers, such as errors."""
        return Counter(a.status for a in self.answers if a.status not in ("200", "409"))

    @property
    def workers(self) -> set[str]:
        """Return the processes that answered."""
        return {answer.worker for answer in self.answers if answer.worker}


def race(site: httpx.Client, view: str, customers: Iterable[Customer], requests: int) -> Outcome:
    """Request each customer's payment from the view, `requests` times at the same moment."""
    pks = [customer.pk for customer in customers]
    collecting.reset(Customer.objects.filter(pk__in=pks))
    answers = [
        answer for pk in pks for answer in send_at_once(site, reverse(view, args=[pk]), requests)
    ]
    return Outcome(answers, customers_by_times_collected(pks))


def send_at_once(site: httpx.Client, path: str, requests: int) -> list[Answer]:
    """Send so many equal requests from as many threads, none of which starts before all can."""
    barrier = Barrier(requests)

    def send() -> Answer:
        barrier.wait(TIMEOUT)
        try:
            response = site.post(path)
        except httpx.HTTPError as error:
            return Answer(type(error).__name__, None)
        return Answer(str(response.status_code), response.headers.get(WORKER_HEADER))

    with ThreadPoolExecutor(requests) as threads:
        sent = [threads.submit(send) for _ in range(requests)]
        return [future.result() for future in sent]


def customers_by_times_collected(pks: list[int]) -> Counter[int]:
    """Count the customers by how often their most often collected invoice was."""
    invoices = Invoice.objects.filter(customer__in=pks).annotate(times=Count("payments"))
    most = dict.fromkeys(pks, 0)
    for pk, times in invoices.values_list("customer", "times"):
        most[pk] = max(most[pk], times)
    return Counter(most.values())


def connect(address: str) -> httpx.Client:
    """Return a client of the site that makes a connection for each request, as visitors do."""
    return httpx.Client(
        base_url=address,
        headers={"Accept": "application/json"},
        timeout=TIMEOUT,
        trust_env=False,  # No proxy stands between this machine and itself.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
    )


def sign_in(site: httpx.Client) -> None:
    """Sign in as the demo's user through the admin's form, and keep the session."""
    login = reverse("admin:login")
    site.get(login).raise_for_status()
    form = {"username": USERNAME, "password": PASSWORD, "csrfmiddlewaretoken": _csrf_token(site)}
    if site.post(login, data=form).status_code != httpx.codes.FOUND:
        raise CommandError(f"Can't sign in as {USERNAME}.")
    site.headers["X-CSRFToken"] = _csrf_token(site)


def _csrf_token(site: httpx.Client) -> str:
    return site.cookies["csrftoken"]
