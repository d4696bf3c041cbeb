"""Dramatiq: a middleware that releases the locks that actors left behind."""

from asyncio import sleep
from typing import Any

from django_distlock.leases.cleanup import finish, start

try:
    from dramatiq import Broker, Middleware
    from dramatiq.asyncio import get_event_loop_thread
    from dramatiq.broker import MessageProxy
    from dramatiq.middleware import Interrupt
except ImportError as error:
    raise ImportError("TaskLocks needs Dramatiq: pip install dramatiq") from error

__all__ = ["TaskLocks"]


class TaskLocks(Middleware):
    """Middleware: release the locks that an actor still holds at its end.

    In an actor, its name is the default label of locks. Put this middleware first, so that no time
    limit interrupts the release.
    """

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Start the task."""
        start(message.actor_name, message.message_id)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Finish the task, however it ended."""
        if isinstance(exception, Interrupt) and (event_loop := get_event_loop_thread()):
            event_loop.run_coroutine(sleep(0))  # an interrupted actor's last step has ended then
        finish(message.message_id)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """See after_process_message()."""
        finish(message.message_id)
