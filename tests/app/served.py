"""A site for real servers: its views, and what WSGI and ASGI servers call."""

import asyncio
import os
import re
import threading
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from django_distlock import distributed_lock
from django_distlock.concurrency.background import background

POOLS = re.compile("ThreadPoolExecutor|django_distlock .* async")
BACKEND = os.environ["DISTLOCK_TEST_SERVED"]


@distributed_lock("counter", timeout=60, backend=BACKEND)
def count(request: HttpRequest) -> HttpResponse:
    """Increment the number in an unguarded file, under the lock."""
    return increment()


def increment() -> HttpResponse:
    """Do it."""
    file = Path(os.environ["DISTLOCK_TEST_COUNTER"])
    number = int(file.read_text()) + 1
    file.write_text(str(number))
    return HttpResponse(number)


@distributed_lock("counter", timeout=60, backend=BACKEND)
async def count_async(request: HttpRequest) -> HttpResponse:
    """Do the same in an async view."""
    await asyncio.sleep(0)
    return increment()


@distributed_lock("hanging <int:number>", backend=BACKEND)
def hang(request: HttpRequest, number: int) -> HttpResponse:
    """Wait for an event that never happens."""
    while True:
        threading.Event().wait()


@distributed_lock("hanging", ttl=1, backend=BACKEND)
def hang_on(request: HttpRequest) -> HttpResponse:
    """Wait for an event that never happens, and ignore SystemExit."""
    while True:
        with suppress(SystemExit):
            threading.Event().wait()


def announce(request: HttpRequest) -> str:
    """Announce to the test that a request has reached its lock; return the semaphore."""
    if request.method == "POST":
        Path(os.environ["DISTLOCK_TEST_COUNTER"]).with_name("announced").touch()
    return "receiving"


@csrf_exempt
@distributed_lock(announce, backend=BACKEND)
def receive(request: HttpRequest) -> HttpResponse:
    """Answer how much the client has sent."""
    return JsonResponse({"received": len(request.body)})


def state(request: HttpRequest) -> HttpResponse:
    """Answer what this worker has open."""
    renewed = background(BACKEND)
    leases = len(renewed.renewals)
    renewed.submit(renewed.renewals.next_due)  # wakes the thread, to see whether it is still needed
    threads = [thread.name for thread in threading.enumerate()]
    # A server starts those of its pool as it needs them, and so do the locks of async code.
    others = sorted(name for name in threads if not POOLS.match(name))
    return JsonResponse({"pid": os.getpid(), "leases": leases, "threads": others})


urlpatterns = [
    path("count/", count),
    path("count-async/", count_async),
    path("hang/<int:number>/", hang),
    path("hang-on/", hang_on),
    path("receive/", receive),
    path("state/", state),
]

wsgi = get_wsgi_application()
asgi = get_asgi_application()

# So that a test sees the threads end, with their connections: the renewing thread looks
# whether there is still something to renew when the first lease would have been due.
patch("django_distlock.leases.deadlines.PERIOD", 1 / 60).start()
patch("django_distlock.concurrency.background.IDLE", 0).start()
patch("django_distlock.backends.listening.IDLE", 0.2).start()
