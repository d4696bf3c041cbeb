"""docs/reference/logging.md has every line that the package logs, and none that it doesn't."""

from __future__ import annotations

import ast
import logging
import logging.config
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.documentation import DOCUMENTS, example
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.once

TEXT = (DOCUMENTS / "reference" / "logging.md").read_text("utf-8")
LEVELS = {"exception": "ERROR", "log": "DEBUG, INFO"}
Line = tuple[str, str, str]


def called(node: ast.AST) -> str:
    """Return the name of the function or method that is called."""
    function = node.func if isinstance(node, ast.Call) else None
    return getattr(function, "attr", getattr(function, "id", ""))


def texts_of(argument: ast.expr, tree: ast.Module) -> Iterator[str]:
    """Yield the texts that the argument may be: its own, or what the module gives its name."""
    if isinstance(argument, ast.Constant):
        yield str(argument.value)
    elif isinstance(argument, ast.Name):
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if ast.dump(targets[0]).startswith(f"Name(id='{argument.id}'"):
                    yield from texts_of(node.value, tree)


def placeholders(text: str) -> str:
    """Return the text as the page writes it."""
    return re.sub(r"%[.\d]*[a-z]", "…", text)


def lines_of(file: Path) -> Iterator[Line]:
    """Yield logger, level and text of each line that the file logs."""
    tree = ast.parse(file.read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    rooms = [ast.literal_eval(each.args[0]) for each in calls if called(each) == "room_logger"]
    rooms += re.findall(r'getLogger\("django_distlock\.(\w+)"\)', file.read_text("utf-8"))
    for call in calls:
        if called(call) == "warn" and file.parent.name == "events":  # Writer.warn()
            yield "events", "WARNING", placeholders(ast.literal_eval(call.args[0]))
        owner = getattr(call.func, "value", None)
        if getattr(owner, "id", "") != "logger" or called(call) in {"isEnabledFor", "addFilter"}:
            continue
        [room] = rooms
        text = call.args[1] if called(call) == "log" else call.args[0]
        for found in texts_of(text, tree):
            yield room, LEVELS.get(called(call), called(call).upper()), placeholders(found)


def rows() -> list[Line]:
    """Return logger, levels and text of each line on the page."""
    found = []
    for each in re.split(r"^### django_distlock\.", TEXT, flags=re.MULTILINE)[1:]:
        room = each.partition("\n")[0]
        for levels, line in re.findall(r"^\| (`[A-Z`, ]+`) \| `(.+?)` \| ", each, re.MULTILINE):
            found.append((room, levels.replace("`", ""), line))
    return found


def test_documented_lines_are_those_of_the_code() -> None:
    """A line that is looked up there is found."""
    logged = {line for file in (ROOT / "django_distlock").rglob("*.py") for line in lines_of(file)}
    assert sorted(rows()) == sorted(logged)


def fields_of(node: ast.AST) -> Iterator[str]:
    """Yield the names of fields that are written here: in a dict, or in a call of log_fields()."""
    for each in ast.walk(node):
        if isinstance(each, ast.Dict):
            yield from (ast.literal_eval(key) for key in each.keys if key is not None)
        elif called(each) == "log_fields" and isinstance(each, ast.Call):
            yield from (keyword.arg for keyword in each.keywords if keyword.arg)


def test_documented_fields_are_those_of_the_code() -> None:
    """A formatter finds each that the page has."""
    found = {"left_out"}
    for file in (ROOT / "django_distlock").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "extra":
                found |= {*fields_of(node.value)}
            elif getattr(node, "name", "") in {"log_fields", "refusal_fields"}:
                found |= {*fields_of(node)}
    table = TEXT.partition("## Fields")[2]
    cells = re.findall(r"^\| (`.*?) \| ", table, re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == found


def test_example_of_the_setting_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every room's lines from INFO on reach the console."""
    monkeypatch.chdir(tmp_path)
    settings: Any = example("how-to/monitor.md", "Log").LOGGING
    names = [*settings["loggers"]]
    before = {name: vars(logging.getLogger(name)).copy() for name in names}
    try:
        logging.config.dictConfig(settings)
        logging.getLogger("django_distlock.locks").info("it was granted")
        logging.getLogger("django_distlock.locks").debug("it was granted, too")
    finally:
        for name in names:
            logger = logging.getLogger(name)
            for handler in logger.handlers:
                handler.close()
            logger.handlers = before[name]["handlers"]
            logger.propagate = before[name]["propagate"]
            logger.setLevel(before[name]["level"])
    assert capsys.readouterr().err.endswith(" INFO django_distlock.locks: it was granted\n")
