"""Models that the tests' views write, and models with a fence."""

from django.db import models

from django_distlock.fencing import FencedModel, FenceField


class Counter(models.Model):
    """A number that views read and write back: without a lock, increments get lost."""

    value = models.IntegerField(default=0)


class Customer(models.Model):
    """A customer, who pays."""

    name = models.CharField(max_length=50)


class Invoice(FencedModel):
    """What a customer owes; collected only under the customer's lock."""

    customer = models.ForeignKey(Customer, models.CASCADE, null=True)
    amount = models.IntegerField(default=0)
    fence = FenceField("<customer_id>collectPayment")


class DunnedInvoice(Invoice):
    """An invoice with a second table: the fence is in the first one."""

    reminders = models.IntegerField(default=0)


class InvoiceOnScreen(Invoice):
    """The same table."""

    class Meta:
        proxy = True


class Payment(models.Model):
    """A row that is deleted with its invoice."""

    invoice = models.ForeignKey(Invoice, models.CASCADE)


class Parcel(FencedModel, Counter):
    """A model with two tables, whose fence is in the second one."""

    weight = models.IntegerField(default=0)
    fence = FenceField("<pk>:send")


class Greeting(FencedModel):
    """A model whose semaphore has a text of another table."""

    customer = models.ForeignKey(Customer, models.CASCADE, null=True)
    sent = models.IntegerField(default=0)
    fence = FenceField("<customer.name>:greet")
