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
                    "renewed_at",
                    django_distlock.fields.EpochMicrosecondsField(
                        blank=True, null=True, verbose_name="renewed at"
                    ),
                ),
                (
                    "expires_at",
                    django_distlock.fields.EpochMicrosecondsField(
                        blank=True, null=True, verbose_name="expires at"
                    ),
                ),
                (
                    "queued_until",
                    django_distlock.fields.EpochMicrosecondsField(
                        editable=False, null=True, serialize=False
                    ),
                ),
            ],
            options={
                "verbose_name": "lock",
                "verbose_name_plural": "locks",
                "ordering": ["semaphore"],
                "indexes": [
                    django_distlock.fields.UnreleasedIndex(
                        fields=["semaphore"], name="distlock_unreleased_locks"
                    )
                ],
                "permissions": [("force_release_lock", "Can force-release lock")],
            },
        ),
        migrations.CreateModel(
            name="LockPause",
            fields=[
                (
                    "prefix",
                    django_distlock.fields.SemaphoreField(
                        blank=True, max_length=255, primary_key=True, serialize=False
                    ),
                ),
                ("since", django_distlock.fields.EpochMicrosecondsField()),
                ("until", django_distlock.fields.EpochMicrosecondsField(null=True)),
                ("reason", models.TextField()),
                ("by", models.TextField()),
            ],
            options={
                "default_permissions": (),
            },
            managers=[("dumped", models.Manager())],
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
                ("seen_at", django_distlock.fields.EpochMicrosecondsField(null=True)),
            ],
            options={
                "default_permissions": (),
                "indexes": [
                    models.Index(fields=["semaphore", "id"], name="distlock_waiters_in_order")
                ],
            },
            managers=[("dumped", models.Manager())],
        ),
        migrations.CreateModel(
            name="LockEvent",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("backend", models.CharField(max_length=255, verbose_name="backend")),
                (
                    "semaphore",
                    django_distlock.fields.SemaphoreField(max_length=255, verbose_name="semaphore"),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("acquired", "acquired"),
                            ("released", "released"),
                            ("lost", "lost"),
                            ("contended", "contended"),
                            ("force_released", "force-released"),
                        ],
                        max_length=16,
                        verbose_name="kind",
                    ),
                ),
                ("at", django_distlock.fields.EpochMicrosecondsField(verbose_name="at")),
                ("token", models.BigIntegerField(null=True, verbose_name="token")),
                ("holder", models.TextField(default="", verbose_name="holder")),
                ("waited", models.BigIntegerField(null=True, verbose_name="waited")),
                ("held", models.BigIntegerField(null=True, verbose_name="held")),
                ("by", models.TextField(default="", verbose_name="by")),
                ("reason", models.TextField(default="", verbose_name="reason")),
            ],
            options={
                "verbose_name": "lock event",
                "verbose_name_plural": "lock events",
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(
                        fields=["backend", "semaphore", "at", "id"],
                        name="distlock_events_of_lock",
                    ),
                    models.Index(fields=["at"], name="distlock_events_by_age"),
                ],
            },
            managers=[("dumped", models.Manager())],
        ),
    ]
