"""The state files of lock servers, and servers that write them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.lock_server_command import Place

LONG = ("--max-ttl", "1000")
FRESH = (*LONG, "--no-grace")
NOTHING_YET = "nothing is granted for"


def content(place: Place) -> Any:
    """Return the content of the state file."""
    return json.loads(place.state.read_bytes())


def change(place: Place, **changes: Any) -> None:
    """Change the content of the file."""
    place.state.write_text(json.dumps(content(place) | changes))


def leave(
    place: Place, *arguments: str, semaphores: tuple[str, ...] = ("1234collectPayment",)
) -> list[int]:
    """Stop a server that has granted these locks; return the tokens."""
    with place.start(*FRESH, *arguments) as running:
        running.serve()
        tokens = place.acquire(*semaphores)
        assert running.stop()[0] == 0
    return tokens


def crash(place: Place, *arguments: str) -> str:
    """Kill a server; return what it printed before."""
    with place.start(*arguments) as running:
        said = running.serve()
        running.kill()
    return said


class in_the_way:  # noqa: N801 - a block
    """Make it impossible to write the state file in the block."""

    def __init__(self, place: Place) -> None:
        self._directory = place.state.with_name(f"{place.state.name}.new")

    def __enter__(self) -> None:
        self._directory.mkdir()

    def __exit__(self, *exception: object) -> None:
        self._directory.rmdir()
