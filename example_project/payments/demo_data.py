"""Data for the demonstration: customers with open invoices, and a user who may collect."""

from decimal import Decimal

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import transaction

from payments.models import Customer, Invoice

USERNAME = "demo"
PASSWORD = "demo"

NAMES = [
    "Ada Lovelace",
    "Alan Turing",
    "Barbara Liskov",
    "Cicely Popplewell",
    "Donald Knuth",
    "Edsger Dijkstra",
    "Grace Hopper",
    "John McCarthy",
    "Katherine Johnson",
    "Leslie Lamport",
    "Margaret Hamilton",
    "Tony Hoare",
]


def prepare(customers: int = len(NAMES)) -> None:
    """Create the tables, the login and so many customers, where they are missing."""
    call_command("migrate", verbosity=0)
    with transaction.atomic():
        # Its fences may be tokens of another store, whose clock may have been ahead.
        Invoice.objects.update(fence=0)
        create_login()
        for number in range(customers):
            create_customer(number)


def create_login() -> None:
    """Create the demo's superuser, or give it its password back."""
    user, created = User.objects.get_or_create(username=USERNAME)
    # A new hash would end existing sessions.
    if created or not user.check_password(PASSWORD):
        user.set_password(PASSWORD)
    user.is_active = user.is_staff = user.is_superuser = True
    user.save()


def create_customer(number: int) -> None:
    """Create a customer with an invoice, every third one with two."""
    generation, index = divmod(number, len(NAMES))
    name = f"{NAMES[index]} {generation + 1}" if generation else NAMES[index]
    customer, created = Customer.objects.get_or_create(name=name)
    for item in range(2 if number % 3 == 2 else 1) if created else ():
        Invoice.objects.create(
            customer=customer,
            number=f"{customer.pk:04}-{item + 1}",
            amount=Decimal(1990 + 1750 * number % 9000 + 500 * item) / 100,
        )
