"""Customers, what they owe, and each payment."""

from django.db import models

from django_distlock.fencing import FencedModel, FenceField


class Customer(models.Model):
    """Somebody who pays invoices."""

    name = models.CharField(max_length=100, unique=True)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return self.name


class Invoice(FencedModel):
    """What a customer owes, until its status says that it was collected."""

    class Status(models.TextChoices):
        """The field that is read, and later written: nothing keeps others out in between."""

        OPEN = "open", "open"
        COLLECTED = "collected", "collected"

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="invoices")
    number = models.CharField(max_length=20, unique=True)
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    status = models.CharField(max_length=10, choices=Status, default=Status.OPEN)
    fence = FenceField("<customer_id>collectPayment")

    class Meta:
        ordering = ("number",)

    def __str__(self) -> str:
        return self.number


class Payment(models.Model):
    """The customer's money, taken once. A second row for one invoice is money taken twice."""

    invoice = models.ForeignKey(Invoice, on_delete=models.CASCADE, related_name="payments")
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    collected_at = models.DateTimeField(auto_now_add=True)
    worker = models.PositiveIntegerField("worker's process id")

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return f"{self.amount} for {self.invoice}"
