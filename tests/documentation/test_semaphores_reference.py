"""docs/reference/semaphores.md has all arguments, converters and names of other libraries."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from django_distlock import aacquire_lock, acquire_lock, distributed_lock
from django_distlock.arguments import LONGEST, LONGEST_LABEL, SHORTEST_TTL
from django_distlock.locks.arguments import OTHERS, BackendTtl
from django_distlock.semaphores.placeholders import NAMED_CONVERTERS
from django_distlock.semaphores.validation import MAX_LENGTH
from tests.support.documentation import DOCUMENTS, rows, section

pytestmark = pytest.mark.once

PAGE = "reference/semaphores.md"
TEXT = (DOCUMENTS / PAGE).read_text("utf-8")


def documented_arguments() -> dict[str, str]:
    """Return the default of each argument, as the page writes it."""
    return {cells[0].strip("`"): cells[-1].strip("`") for cells in rows(section(PAGE, "Arguments"))}


@pytest.mark.parametrize("function", [acquire_lock, aacquire_lock, distributed_lock])
def test_documented_arguments_are_those_of_the_functions(function: Any) -> None:
    """With their defaults; only a decorator has the last two."""
    documented = documented_arguments()
    of_decorators = {name: documented.pop(name) for name in ("on_conflict", "http")}
    if function is distributed_lock:
        documented |= of_decorators
    shown = {
        "ttl": "the store's [`ttl`](settings.md#options)",
        "label": "[a name](#labels)",
        "semaphore": "required",
        "backend": '"default"',
    }
    found = {}
    for name, each in inspect.signature(function).parameters.items():
        if each.kind is not each.VAR_KEYWORD:
            found[name] = shown.get(name, str(each.default))
    assert documented == found
    assert inspect.signature(function).parameters["ttl"].default is BackendTtl.DEFAULT


def test_documented_limits_are_those_of_the_code() -> None:
    """Of texts and of durations."""
    assert f"1 to {MAX_LENGTH} characters" in TEXT
    assert f"from 0 to {LONGEST:.0f}" in TEXT
    assert f"from {SHORTEST_TTL:g} to {LONGEST:.0f}" in TEXT
    assert f"up to {LONGEST_LABEL} characters" in TEXT


def test_documented_converters_are_those_of_the_code() -> None:
    """One that is missing there is never found."""
    documented = re.findall(r"^\| `<(\w+):…>` \|", section(PAGE, "Converters"), re.MULTILINE)
    assert sorted(documented) == sorted(NAMED_CONVERTERS)


def test_documented_names_of_other_libraries_are_those_that_get_a_hint() -> None:
    """And the page names none that has no hint, but redis-py's timeout."""
    cells = [cells[0] for cells in rows(section(PAGE, "Names in other libraries"))]
    documented = {name for cell in cells for name in re.findall(r"`(\w+)[`=]", cell)}
    assert documented - {"timeout"} == {*OTHERS}
