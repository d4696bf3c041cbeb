"""Workers that send requests to views."""

import json
import sys


def visit(path: str, requests: str) -> list[int]:
    """Send so many requests to a view under ATOMIC_REQUESTS; return their statuses."""
    from django.test import Client

    client = Client()
    return [client.get(path).status_code for _ in range(int(requests))]


def visit_each(paths: str, requests: str) -> list[int]:
    """Send so many requests to each of these views, and print their statuses.

    Each begins with the next view when its line arrives, like the other workers.
    """
    for path in paths.split():
        print(json.dumps(visit(path, requests)), flush=True)
        sys.stdin.readline()
    return []


def pause_request(path: str) -> int:
    """Send a request, pause it when its view has read, and return the status."""
    from django.test import Client

    from tests.app.views import has_read

    def pause(**kwargs: object) -> None:
        print(json.dumps("read"), flush=True)
        sys.stdin.readline()

    has_read.connect(pause)
    return Client(raise_request_exception=False).get(path).status_code


def visit_when_told(*paths: str) -> None:
    """Send a request to one view after the other, each after a line; print their statuses."""
    from django.test import Client

    client = Client()
    for path in paths:
        sys.stdin.readline()
        print(json.dumps(client.get(path).status_code), flush=True)
