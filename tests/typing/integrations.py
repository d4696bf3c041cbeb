"""What a site switches on, for other libraries and for monitoring."""

from typing import Any, assert_type

from dramatiq.brokers.stub import StubBroker
from ninja import NinjaAPI
from opentelemetry.metrics import NoOpMeterProvider
from prometheus_client import CollectorRegistry
from sentry_sdk.integrations import Integration

from django_distlock.health.health_check import LockStore
from django_distlock.integrations import huey, ninja, rest_framework
from django_distlock.integrations.channels import ReleaseLocks
from django_distlock.integrations.debug_toolbar import LocksPanel
from django_distlock.integrations.dramatiq import TaskLocks
from django_distlock.integrations.procrastinate import TASK_MIDDLEWARE
from django_distlock.integrations.rest_framework import exception_handler
from django_distlock.integrations.rq import Job
from django_distlock.integrations.sentry import DistlockIntegration
from django_distlock.integrations.tasks import task_scope
from django_distlock.telemetry import opentelemetry, prometheus


def template_of(semaphore: str) -> str:
    """Name the template of a semaphore."""
    return semaphore.lstrip("0123456789")


def measure() -> None:
    """Switch metrics and traces on, and off."""
    prometheus.instrument(registry=CollectorRegistry(), template_of=template_of)
    prometheus.uninstrument()
    opentelemetry.instrument(
        meter_provider=NoOpMeterProvider(), semaphores=True, template_of=template_of
    )
    opentelemetry.uninstrument()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application."""


@rest_framework.answer_lock_errors
def handle(error: Exception, context: dict[str, Any]) -> Any:
    """An exception handler of the site's own."""
    return exception_handler(error, context)


def integrate(queue: Any) -> None:
    """One line for each library."""
    broker = StubBroker(middleware=[TaskLocks()])
    assert_type(ReleaseLocks(application), ReleaseLocks)
    assert_type(DistlockIntegration(semaphores=True), DistlockIntegration)
    huey.add_hooks(queue)
    ninja.answer_lock_errors(NinjaAPI())
    enabled: list[Integration] = [DistlockIntegration(), DistlockIntegration(semaphores=True)]
    print(enabled, broker, LocksPanel, LockStore, Job, len(TASK_MIDDLEWARE))


async def run_task() -> str:
    """A task of a queue that has no integration of its own."""
    with task_scope("collect") as task:
        assert_type(task, task_scope)
    async with task_scope("collect"):
        return "collected"
