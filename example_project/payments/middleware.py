"""Name the answering process in each response."""

import os
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

WORKER_HEADER = "X-Worker"


def name_worker(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Name the answering worker, so that a race shows that its answers come from several."""

    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response[WORKER_HEADER] = str(os.getpid())
        return response

    return answer
