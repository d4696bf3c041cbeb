"""Use locks in the site of two tenants, and print what was found, as JSON.

It is imported by a process with the site's settings, after django.setup().
"""

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import StringIO
from typing import Any

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test import Client, override_settings
from django.urls import path
from django_tenants.utils import schema_context

from django_distlock import (
    LockBackendUnavailable,
    LockLost,
    acquire_lock,
    distributed_lock,
    lock_backends,
    release_lock,
)
from django_distlock.backends.database.connections import close_own_connections
from django_distlock.models import LockEvent
from tests.app.models import Counter
from tests.support.concurrency import until
from tests.support.documentation import example
from tests.support.tenants.models import Domain, Tenant

documented = example("integrations/django-tenants.md", "Give each tenant its own lock")
urlpatterns = [*documented.urlpatterns, path("admin/", admin.site.urls)]
store: Any = lock_backends["default"]
found: dict[str, Any] = {}
TENANTS = ("acme", "globex")
NAME = "1234collectPayment"


def step(look: Callable[[], Any]) -> None:
    """Do something, and keep what is found by its name."""
    with schema_context("public"):
        found[look.__name__] = look()


def host(tenant: str) -> Client:
    """Return a client of a tenant's site."""
    return Client(headers={"host": f"{tenant}.localhost"})


def checked() -> str:
    """Return the messages of the system checks."""
    output = StringIO()
    call_command("check", databases=["default"], stdout=output, stderr=output)
    return output.getvalue()


def migrate() -> None:
    """Make the schemas."""
    call_command("migrate_schemas", shared=True, run_syncdb=True, verbosity=0)
    for name in TENANTS:
        tenant = Tenant(schema_name=name)
        tenant.save(verbosity=0)
        Domain.objects.create(tenant=tenant, domain=f"{name}.localhost", is_primary=True)


@step
def tables() -> list[Any]:
    """Return where the tables of locks are."""
    migrate()
    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT schemaname FROM pg_tables WHERE tablename LIKE 'distlock%'")
        return [schema for (schema,) in cursor.fetchall()]


@step
def one_lock_for_all() -> list[bool]:
    """Ask for one semaphore in each schema."""
    granted = []
    for tenant in (*TENANTS, "public"):
        with schema_context(tenant):
            granted.append(acquire_lock(NAME) is not None)
    return [*granted, release_lock(NAME)]


@step
def waiting_in_another_tenant() -> float:
    """Return how much of the wait was left when another tenant's code released the lock."""

    def wait() -> float:
        with schema_context("globex"), distributed_lock(NAME, timeout=600) as lease:
            connection.close()
            return 600 - lease.waited

    with ThreadPoolExecutor(1) as threads:
        with schema_context("acme"), distributed_lock(NAME):
            waiter = threads.submit(wait)
            until(lambda: store.find(NAME).waiting == 1)
        return waiter.result()


@step
def guarded_commits() -> list[Any]:
    """Return the rows after a commit, and after one whose lock was lost."""
    rows: list[Any] = []
    for is_lost in (False, True):
        with schema_context("acme"), suppress(LockLost):
            with distributed_lock(NAME) as lease, transaction.atomic():
                Counter.objects.create()
                with schema_context("globex"):
                    Counter.objects.create()
                    if is_lost:
                        store.force_release(NAME, lease.token)
        for tenant in TENANTS:
            with schema_context(tenant):
                rows.append(Counter.objects.count())
    return rows


@step
def documented_views() -> dict[str, list[int]]:
    """Return each tenant's answers while acme's code holds the locks."""
    with schema_context("acme"), distributed_lock("acme:1234collectPayment"):
        with distributed_lock("nightlyReport"):
            return {
                url: [host(tenant).get(url).status_code for tenant in TENANTS]
                for url in ("/collect/1234/", "/collect/7/", "/report/")
            }


@step
def documented_function() -> list[Any]:
    """Return whether each tenant gets a refund while acme's lock is held."""
    results: list[Any] = []
    with distributed_lock("acme:1234refund"):
        for tenant in TENANTS:
            with schema_context(tenant):
                try:
                    results.append(documented.refund(1234))
                except Exception as error:  # noqa: BLE001 - its type is looked at
                    results.append(type(error).__name__)
    return results


@step
def operators() -> list[bool]:
    """Return whether a tenant's admin and a tenant's command show another one's lock."""
    client, output = host("globex"), StringIO()
    client.force_login(User.objects.create_superuser("operator"))
    with schema_context("acme"), distributed_lock("shown"):
        page = client.get("/admin/distlock/lock/").content.decode()
        with schema_context("globex"):
            call_command("list_locks", stdout=output)
            until(LockEvent.objects.filter(semaphore="shown").exists)
    return ["shown" in page, "shown" in output.getvalue()]


@step
def checks() -> list[str]:
    """Return the messages in the shared schema and in a tenant's."""
    with schema_context("acme"):
        in_tenant = checked()
    return [checked(), in_tenant]


@step
def tenant_app() -> dict[str, str]:
    """Return what a site is told that has the app in TENANT_APPS alone."""
    with override_settings(SHARED_APPS=["django_tenants"], TENANT_APPS=["django_distlock"]):
        told = {"check": checked()}
        with schema_context("acme"):
            told["check in a tenant"] = checked()
            assert vars(connections["default"])["schema_name"] == "acme"
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE distlock_lock SET SCHEMA acme")
        close_own_connections()
        with schema_context("acme"), suppress(LockBackendUnavailable):
            try:
                acquire_lock(NAME)
            except LockBackendUnavailable as error:
                told["error"] = str(error)
        return told


json.dump(found, sys.stdout)
