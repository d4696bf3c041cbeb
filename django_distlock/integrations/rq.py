"""RQ: a class of jobs that release the locks that their functions left behind."""

from typing import Any

from .tasks import task_scope

try:
    from rq.job import Job as RQJob
except ImportError as error:
    raise ImportError("This class of jobs needs RQ: pip install django-rq") from error

__all__ = ["Job"]


class Job(RQJob):
    """A class of jobs: release the locks that a job's function still holds at its end.

    In the function, its name is the default label of locks. Switch it on with
    `RQ = {"JOB_CLASS": "django_distlock.integrations.rq.Job"}`.
    """

    def perform(self) -> Any:
        """Run the function; release the locks that it acquired and did not release."""
        with task_scope(self.func_name or ""):
            return super().perform()
