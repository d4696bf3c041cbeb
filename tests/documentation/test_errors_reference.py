"""docs/reference/errors.md has every exception and message of the package, and no others."""

from __future__ import annotations

import re

import pytest

import django_distlock
from django_distlock import LockError
from django_distlock.semaphores.validation import InvalidSemaphore
from tests.documentation.messages import messages
from tests.support.documentation import DOCUMENTS, section

pytestmark = pytest.mark.once

PAGE = "reference/errors.md"
TEXT = (DOCUMENTS / PAGE).read_text("utf-8")
TABLE = re.compile(r"^\| message \|.*\n\|-.*\n((?:\|.*\n)+)", re.MULTILINE)
CODE = re.compile(r"(?<!`)(`{1,2}) ?(.+?) ?\1(?!`)")


def documented() -> list[str]:
    """Return the messages in the first cells of the tables."""
    rows = "".join(TABLE.findall(TEXT)).splitlines()
    cells = [re.split(r"(?<!\\)\|", row)[1] for row in rows]
    return [text.replace(r"\|", "|") for cell in cells for _, text in CODE.findall(cell)]


def test_every_message_is_documented() -> None:
    """Each once, and nothing that the package doesn't say."""
    assert sorted(documented()) == sorted(messages())


def test_every_exception_is_documented() -> None:
    """In the order of their definition, with the classes that they are derived from."""
    public = [getattr(django_distlock, name) for name in django_distlock.__all__]
    errors = {each for each in public if isinstance(each, type) and issubclass(each, Exception)}
    errors.add(InvalidSemaphore)
    rows = re.findall(r"^\| `(\w+)` \|", section(PAGE, "Exceptions"), re.MULTILINE)
    assert {*rows} == {each.__name__ for each in errors}
    assert [*rows[1:6]] == [each.__name__ for each in LockError.__subclasses__() if each in errors]
    for each in errors:
        for base in set(each.__bases__) - {LockError, Exception}:
            assert re.search(rf"`{each.__name__}`[^.`]* `{base.__name__}`", TEXT)


def test_messages_are_found_in_code_of_all_kinds() -> None:
    """Of f-strings, constants, functions, and variables; else the test above would say nothing."""
    found = messages()
    for text in (
        "A semaphore can't be empty.",
        "Somebody else holds ….",
        "the entry changed, or was gone, … times in between",
        "… was not released by a request or task, and ended with it: release it there.",
    ):
        assert text in found
