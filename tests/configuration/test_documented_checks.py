"""docs/reference/checks.md lists the system checks of the code, and no others."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache

import pytest

from tests.support.documentation import text_of
from tests.support.paths import ROOT

pytestmark = pytest.mark.once

LEVELS = {"Warning": "W", "Error": "E"}
DOCUMENT = (ROOT / "docs" / "reference" / "checks.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(distlock\.\w+)` \| (.+?) \| .+ \|$", DOCUMENT, re.MULTILINE)


@cache
def messages() -> list[ast.Call]:
    """Return each place in the code where a message is made."""
    texts = [file.read_text("utf-8") for file in (ROOT / "django_distlock").rglob("*.py")]
    return [
        node
        for text in texts
        if "distlock." in text
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and "id" in keywords(node)
    ]


def keywords(call: ast.Call) -> dict[str | None, ast.expr]:
    """Return the keyword arguments of a call of the checks' messages."""
    made = call.func
    if isinstance(made, ast.Attribute) and made.attr in LEVELS:
        return {each.arg: each.value for each in call.keywords}
    return {}


def id_of(call: ast.Call) -> str:
    """Return the message's id."""
    return str(text_of(keywords(call)["id"]))


def test_each_message_is_documented_and_no_other() -> None:
    """Both ways."""
    assert {id_ for id_, _ in ROWS} == {id_of(call) for call in messages()}


def test_each_message_has_a_level_and_a_hint() -> None:
    """The letter of the id is that of the level."""
    for call in messages():
        assert isinstance(call.func, ast.Attribute)
        assert re.fullmatch(rf"distlock\.{LEVELS[call.func.attr]}\d{{3}}", id_of(call)), id_of(call)
        assert "hint" in keywords(call), id_of(call)


def test_documented_messages_are_those_of_the_code() -> None:
    """Where a row shows a message, its parts are in one of the code's, in their order."""
    texts = defaultdict(list)
    for call in messages():
        texts[id_of(call)].append(text_of(call.args[0]))
    for id_, cell in ROWS:
        if None in texts[id_]:  # the message is that of an exception
            continue
        message = re.match(r"`(.+?)`", cell)[1]  # type: ignore[index]
        parts = [part.strip("` .") for part in re.split(r"'?…'?", message)]
        pattern = re.compile(".*".join(map(re.escape, parts)))
        assert any(pattern.search(text or "") for text in texts[id_]), (id_, message, texts[id_])
