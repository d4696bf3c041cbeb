"""System checks, each described in docs/reference/checks.md.

A check never raises. A plain `check` contacts nothing; `check --database X` asks that database, and
`check --deploy` the stores, each within its time limit.
"""

from django.core.checks import Tags, register

from .missing_app import warn_of_missing_app
from .processes import check_threads, check_worker_timeout
from .stores import (
    check_databases,
    check_deployed_databases,
    check_deployment,
    check_lock_backends,
)

__all__ = [
    "TAG",
    "check_databases",
    "check_deployed_databases",
    "check_deployment",
    "check_lock_backends",
    "register_checks",
]

TAG = "distlock"
"""The tag of those that ask no database: Django runs checks of a given tag on all databases."""


def register_checks() -> None:
    """Register the checks of the settings; warn if that comes too late to tell of a missing app."""
    register(check_lock_backends, TAG)
    register(check_threads, TAG)
    register(check_worker_timeout, TAG)
    register(check_databases, Tags.database)
    register(check_deployment, TAG, deploy=True)
    register(check_deployed_databases, Tags.database, deploy=True)
    warn_of_missing_app()
