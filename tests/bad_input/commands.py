"""Commands with wrong arguments, their exit codes, and what they say on stderr."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

from django.core.management import execute_from_command_line

from tests.bad_input.table import LISTING, PAUSING, STORES, Answered, Row

if TYPE_CHECKING:
    from collections.abc import Callable

ERROR, USAGE = 1, 2


def command(*arguments: str, of_store: bool = False) -> Callable[[str], None]:
    """Return a call of `manage.py`; its last line on stderr says what is wrong."""

    def run(alias: str) -> None:
        backend = [f"--backend={alias}"] if of_store else []
        said = io.StringIO()
        try:
            with redirect_stderr(said), redirect_stdout(io.StringIO()):
                execute_from_command_line(["manage.py", *arguments, *backend])
        except SystemExit as end:
            assert "Traceback" not in said.getvalue()
            raise Answered(end.code or 0, said.getvalue().splitlines()[-1]) from end

    return run


USAGES = {
    "list_locks a\n": "argument PREFIX: A semaphore has no control characters",
    "list_locks --state=lost": "argument --state: invalid choice",
    "list_locks --format=xml": "argument --format: invalid choice",
    "list_locks --limit=0": "argument --limit: '0' is not a whole number above 0",
    "list_locks --limit=-1": "argument --limit: '-1' is not a whole number above 0",
    "list_locks --limit=\u0661": "argument --limit: '\u0661' is not a whole number above 0",
    "list_locks --interval=fast": "argument --interval: 'fast' is not a duration",
    "list_locks --watch --interval=999999d": "'999999d' is longer than 3650d",
    "list_locks --colour=red": "unrecognized arguments: --colour=red",
    "list_locks --backend=nowhere": r"DISTLOCK\['nowhere'\]: not configured",
    "release_lock": "the following arguments are required: SEMAPHORE",
    "release_lock ": "argument SEMAPHORE: A semaphore can't be empty",
    "release_lock job --token=x": "argument --token: 'x' is not a whole number",
    "release_lock job --token=-1": "argument --token: '-1' is not a whole number",
    "pause_locks": "one of the arguments PREFIX --all is required",
    "pause_locks deploy: --all": "argument --all: not allowed with argument PREFIX",
    "pause_locks ": "argument PREFIX: A semaphore can't be empty",
    "pause_locks --all --for=0s": "argument --for: must be longer than 0",
    "pause_locks --all --for=1w": "'1w' is not a duration; write 90s, 15m, 12h or 1d",
    "resume_locks": "one of the arguments PREFIX --all is required",
    "clear_stale_locks --prefix=a\n": "argument --prefix: A semaphore has no control",
    "clear_stale_locks --held-longer-than=0s": "must be longer than 0",
    "clear_stale_locks --holder=web3": "--holder needs a text, and --held-longer-than",
    "clear_stale_locks --held-longer-than=1h --holder=": "--holder needs a text, and --held",
    "clear_stale_locks --purge-events=3651d": "'3651d' is longer than 3650d",
    "clear_stale_locks --older-than=-1d": "unrecognized arguments: --older-than=-1d",
    "with_lock": "the following arguments are required: semaphore, command",
    "with_lock job": "the following arguments are required: command",
    "with_lock \0 -- true": "argument semaphore: A semaphore has no control characters",
    "with_lock job --timeout=nan -- true": "'nan' is no number of seconds from 0 up",
    "with_lock job --timeout=-1 -- true": "'-1' is no number of seconds from 0 up",
    "with_lock job --ttl=0 -- true": "ttl is 0.0, but must be from 0.001",
    "with_lock job --conflict-exit-code=256 -- true": "'256' is no exit code from 0 to 255",
    "with_lock job --grace=inf -- true": "'inf' is no number of seconds from 0 up",
    "run_lock_server --bind=a:1 --unix=/b": "argument --unix: not allowed with argument --bind",
    "run_lock_server --max-locks=many": "argument --max-locks: invalid int value: 'many'",
}
ROWS = [
    *(
        Row(line, command(*line.split(" ")), USAGE, says, frozenset({"memory"}))
        for line, says in USAGES.items()
    ),
    *(
        Row(line, command(*line.split(" "), of_store=True), ERROR, says, STORES - stores)
        for line, says, stores in (
            ("list_locks --format=json", "can't list locks", LISTING),
            ("release_lock job", "can't list locks", LISTING),
            ("pause_locks --all", "can't pause", PAUSING),
        )
    ),
    Row(
        "release_lock of a lock that nobody holds",
        command("release_lock", "nobody's", "--no-input", of_store=True),
        ERROR,
        "Nothing was released: nobody's is free",
        LISTING - {"memory"},
    ),
]
