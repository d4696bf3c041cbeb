"""What the tests' views write, and what is written under a fence."""

from django.db import models

from django_distlock.fencing import FencedModel, FenceField


class Counter(models.Model):
    """A number that views read and write back: without a lock, increments get lost."""

    value = models.IntegerField(default=0)


class Customer(models.Model):
    """Somebody who pays."""

    name = models.CharField(max_length=50)


class Invoice(FencedModel):
    """What a customer owes: nobody collects it without the customer's lock."""

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
    """What goes when its invoice goes."""

    invoice = models.ForeignKey(Invoice, models.CASCADE)


class Parcel(FencedModel, Counter):
    """A model with two tables, whose fence is in the second one."""

    weight = models.IntegerField(default=0)
    fence = FenceField("<pk>:send")


class Greeting(FencedModel):
    """Whose lock is made of a text in another table."""

    customer = models.ForeignKey(Customer, models.CASCADE, null=True)
    sent = models.IntegerField(default=0)
    fence = FenceField("<customer.name>:greet")
