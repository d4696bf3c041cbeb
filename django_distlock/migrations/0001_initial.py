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
                    models.CharField(
                        blank=True,
                        default="",
                        max_length=32,
                        serialize=False,
                        verbose_name="owner",
                    ),
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
        migrations.CreateModel(
            name="WaitingProcess",
            fields=[
                ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("seen_at", django_distlock.fields.EpochMicrosecondsField()),
            ],
            options={
                "default_permissions": (),
            },
            managers=[("dumped", models.Manager())],
        ),
        migrations.CreateModel(
            name="LockWaiter",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("semaphore", django_distlock.fields.SemaphoreField(max_length=255)),
                ("owner", models.CharField(max_length=32, serialize=False)),
                ("holder", models.TextField()),
                ("process", models.BigIntegerField()),
                ("number", models.BigIntegerField()),
            ],
            options={
                "default_permissions": (),
                "indexes": [
                    models.Index(fields=["semaphore", "id"], name="distlock_waiters_in_order")
                ],
            },
            managers=[("dumped", models.Manager())],
        ),
    ]
