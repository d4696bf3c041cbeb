"""What pause_locks and resume_locks share."""

from argparse import ArgumentParser

from django.core.management.base import OutputWrapper

from django_distlock.backends.base import BaseLockBackend

from . import options
from .base import find_store, unseen_locks
from .options import OutputFormat
from .output.rows import json_array, pause_row
from .output.text import pause_lines


def add_pause_arguments(parser: ArgumentParser, *, prefix_help: str, all_help: str) -> None:
    """Add PREFIX and `--all`, one of which is needed, and the common options."""
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument(
        "prefix", metavar="PREFIX", nargs="?", type=options.semaphore, help=prefix_help
    )
    group.add_argument("--all", action="store_true", help=all_help)
    options.add_backend_option(parser)
    options.add_format_option(parser)


def find_pausing_store(alias: str) -> BaseLockBackend:
    """Return the store, unless this command can't reach its pauses."""
    store = find_store(alias)
    if unseen := unseen_locks(store):
        raise unseen
    return store


def write_pauses(stream: OutputWrapper, store: BaseLockBackend, output: str) -> None:
    """Write the pauses that are in force."""
    pauses = store.pauses()
    if output == OutputFormat.JSON:
        with json_array(stream) as write:
            for pause in pauses:
                write(pause_row(store.alias, pause))
        return
    stream.write("\n".join(pause_lines(pauses)))
