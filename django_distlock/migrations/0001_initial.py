from django.db import migrations, models

import django_distlock.fields


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Lock",
            fields=[
                (
                    "semaphore",
                    django_distlock.fields.SemaphoreField(
                        max_length=255, primary_key=True, serialize=False, verbose_name="semaphore"
                    ),
                ),
                (
                    "owner",
                    models.CharField(blank=True, default="", max_length=32, verbose_name="owner"),
                ),
                ("token", models.BigIntegerField(default=0, verbose_name="token")),
                ("holder", models.TextField(blank=True, default="", verbose_name="holder")),
                (
                    "acquired_at",
                    django_distlock.fields.EpochMicrosecondsField(
                        blank=True, null=True, verbose_name="acquired at"
                    ),
                ),
                (
                    "expires_at",
                    django_distlock.fields.EpochMicrosecondsField(
                        blank=True, null=True, verbose_name="expires at"
                    ),
                ),
            ],
            options={
                "verbose_name": "lock",
                "verbose_name_plural": "locks",
                "ordering": ["semaphore"],
            },
        ),
    ]
