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


def test_documented_lines_are_those_of_the_code() -> None:
    """A line that is looked up there is found."""
    rows = re.findall(r"^\| `(\w+)` \| (`[A-Z`, ]+`) \| `(.+)` \|$", TEXT, re.MULTILINE)
    documented = [(room, levels.replace("`", ""), line) for room, levels, line in rows]
    logged = {line for file in (ROOT / "django_distlock").rglob("*.py") for line in lines_of(file)}
    assert sorted(documented) == sorted(logged)


def test_documented_loggers_are_those_of_the_code() -> None:
    """Each has its row."""
    documented = re.findall(r"^\| `django_distlock\.(\w+)` \|", TEXT, re.MULTILINE)
    rows = re.findall(r"^\| `(\w+)` \| `[A-Z]", TEXT, re.MULTILINE)
    assert sorted(documented) == sorted({*rows})


def test_example_of_the_setting_works(capsys: pytest.CaptureFixture[str]) -> None:
    """Every room's lines from INFO on reach the console."""
    settings: Any = example("reference/logging.md", "Loggers").LOGGING
    logger = logging.getLogger("django_distlock")
    level, handlers, propagates = logger.level, logger.handlers[:], logger.propagate
    try:
        logging.config.dictConfig(settings)
        logging.getLogger("django_distlock.locks").info("it was granted")
        logging.getLogger("django_distlock.locks").debug("it was granted, too")
    finally:
        logger.handlers, logger.propagate = handlers, propagates
        logger.setLevel(level)
    assert capsys.readouterr().err.endswith(" INFO django_distlock.locks: it was granted\n")
