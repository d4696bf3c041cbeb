"""What workers did with locks, in the order of one clock: CLOCK_MONOTONIC of the machine.

Each worker appends to a file of its own: one line when an operation is invoked, and one when it
returns. A line is one write, so a worker that is killed leaves whole lines; an operation that did
not return may or may not have happened.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Kind = Literal["acquire", "renew", "check", "release", "increment", "exit"]
"""`check` asks a lease whether it is still held; `exit` is the end of a worker's process."""
Outcome = Literal["ok", "refused", "unknown", "lost"]

NEVER = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation, with what is known of it.

    `owner` is known once an acquisition was granted. `background` says of an acquisition that its
    lease is renewed by the package, unseen; and of a renewal, that the holder does not count on it.
    `value` is what an increment wrote. All times are seconds; a `ttl` of None lasts until the
    release, a `timeout` of None waits without limit.
    """

    worker: str
    number: int
    semaphore: str
    operation: Kind
    invoked: float
    returned: float = NEVER
    outcome: Outcome = "unknown"
    owner: str | None = None
    token: int | None = None
    ttl: float | None = None
    timeout: float | None = 0
    background: bool = False
    value: int | None = None

    def __str__(self) -> str:
        token = "" if self.token is None else f" token {self.token}"
        return (
            f"{self.worker}#{self.number} {self.operation} {self.semaphore!r}{token}"
            f" [{self.invoked:.6f}, {self.returned:.6f}] {self.outcome}"
        )


class HistoryFile:
    """A worker's own file."""

    def __init__(self, path: Path, worker: str) -> None:
        self.worker = worker
        self.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.operations = 0

    def begin(
        self,
        operation: Kind,
        semaphore: str,
        *,
        owner: str | None = None,
        token: int | None = None,
        ttl: float | None = None,
        timeout: float | None = 0,
        background: bool = False,
    ) -> Operation:
        """Write that an operation is invoked now."""
        self.operations += 1
        invoked = Operation(
            worker=self.worker,
            number=self.operations,
            semaphore=semaphore,
            operation=operation,
            invoked=now(),
            owner=owner,
            token=token,
            ttl=ttl,
            timeout=timeout,
            background=background,
        )
        fields = ("semaphore", "operation", "owner", "token", "ttl", "timeout", "background")
        self.write(invoked, invoked.invoked, {name: getattr(invoked, name) for name in fields})
        return invoked

    def end(self, invoked: Operation, outcome: Outcome, **known: Any) -> None:
        """Write that an operation has returned; `known` are fields that its return told."""
        self.write(invoked, now(), {"outcome": outcome, **known})

    def write(self, operation: Operation, at: float, fields: dict[str, Any]) -> None:
        """Write one line at once."""
        line = {"worker": operation.worker, "number": operation.number, "at": at, **fields}
        os.write(self.descriptor, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Close the file. What was written stays, however the process ends."""
        os.close(self.descriptor)


def now() -> float:
    """Return the time in seconds, by the clock that all workers of a machine share."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def read_histories(paths: Iterable[Path]) -> list[Operation]:
    """Read the files of all workers, into the order in which operations were invoked."""
    operations: dict[tuple[str, int], Operation] = {}
    for path in paths:
        for line in path.read_bytes().splitlines():
            fields = json.loads(line)
            at = fields.pop("at")
            key = fields["worker"], fields["number"]
            if key in operations:
                operations[key] = replace(operations[key], returned=at, **fields)
            else:
                operations[key] = Operation(invoked=at, **fields)
    return sorted(operations.values(), key=lambda operation: operation.invoked)
