"""Customers and what they owe."""

from django.db import models

from django_distlock.fencing import FencedModel, FenceField


class Customer(models.Model):
    """A customer, who pays."""

    name = models.CharField(max_length=50)

    class Meta:
        app_label = "shop"


class Invoice(FencedModel):
    """What a customer owes."""

    customer = models.ForeignKey(Customer, models.CASCADE, related_name="invoices")
    amount = models.IntegerField(default=100)
    paid = models.BooleanField(default=False)
    fence = FenceField("<customer_id>collectPayment")

    class Meta:
        app_label = "shop"
