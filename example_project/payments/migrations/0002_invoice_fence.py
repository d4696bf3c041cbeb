"""Give invoices the token of their last writer."""

from django.db import migrations

import django_distlock.fencing


class Migration(migrations.Migration):
    dependencies = (("payments", "0001_initial"),)

    operations = (
        migrations.AddField(
            model_name="invoice",
            name="fence",
            field=django_distlock.fencing.FenceField(semaphore="<customer_id>collectPayment"),
        ),
    )
