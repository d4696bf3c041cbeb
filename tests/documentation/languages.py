"""How blocks of each language are run or checked."""

from __future__ import annotations

import doctest
import json
import tomllib
from configparser import ConfigParser
from html.parser import HTMLParser
from io import StringIO
from typing import TYPE_CHECKING

import yaml
from django.db import connections, transaction
from django.template import Context, Engine
from sybil.evaluators.python import PythonEvaluator

from tests.documentation.console import check_options, check_shell, run_console
from tests.documentation.elsewhere import NOT_RUN, SQL_SERVERS
from tests.support.documentation import DOCUMENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sybil import Example

EMPTY = {"br", "hr", "img", "input", "link", "meta", "source", "wbr"}
"""HTML elements that have no end tag."""

UNCHECKED = {
    "text": "output, or a drawing",
    "java": "shows another library: nothing here can run it",
    "php": "shows another library: nothing here can run it",
}
"""Languages whose blocks are neither run nor checked, with the reason."""


class Tags(HTMLParser):
    """The open elements of a document."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> ends nothing"
        assert (last := self.open.pop()) == tag, f"</{tag}> ends <{last}>"


def check_html(source: str) -> None:
    """Fail unless every element is ended."""
    tags = Tags()
    tags.feed(source)
    tags.close()
    assert not tags.open, f"not ended: {tags.open}"


def check_template(source: str) -> None:
    """Fail unless Django reads the template, and makes HTML of it."""
    libraries = {"i18n": "django.templatetags.i18n", "static": "django.templatetags.static"}
    if "{% extends" not in source:
        template = Engine(libraries=libraries).from_string(source)
        check_html(template.render(Context()))
    check_html(source)


def check_ini(source: str) -> None:
    """Fail unless it is (part of) an INI file or systemd unit, whose management commands exist."""
    parser = ConfigParser(strict=False, interpolation=None)
    parser.read_string(source if source.startswith("[") else f"[part]\n{source}")
    check_options(source)


def check_dockerfile(source: str) -> None:
    """Fail unless each line is an instruction, whose management commands exist."""
    for line in source.replace("\\\n", "").splitlines():
        instruction = line.split(" ")[0]
        assert not line or instruction.startswith("#") or instruction in DOCKER, line
    check_options(source)


DOCKER = {"CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "WORKDIR"}


def run_doctest(example: Example) -> None:
    """Run the lines after `>>> `, and compare what they print."""
    test = doctest.DocTestParser().get_doctest(
        example.parsed, example.namespace, example.path, example.path, example.line
    )
    shown = StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert not runner.run(test, out=shown.write, clear_globs=False).failed, shown.getvalue()


def run_python(example: Example) -> None:
    """Run a block in the page's namespace; only read one that NOT_RUN names by its first line."""
    if str(example.parsed).split("\n", 1)[0] in NOT_RUN:
        compile(str(example.parsed), example.path, "exec")
    else:
        PythonEvaluator()(example)


def run_sql(example: Example) -> None:
    """Run the statements in SQLite, unless the page is for another database."""
    page = example.path.removeprefix(f"{DOCUMENTS}/")
    if page not in SQL_SERVERS:
        run_statements(example.parsed, "default")


def run_statements(source: str, alias: str) -> None:
    """Run statements, and undo what they do where the database can."""
    statements = [one for part in source.split(";\n") if (one := part.strip().rstrip(";"))]
    with transaction.atomic(alias), connections[alias].cursor() as cursor:
        for statement in statements:
            if statement not in NOT_RUN:
                cursor.execute(statement.replace("%", "%%"))
        transaction.set_rollback(True, alias)


def _read_by(check: Callable[[str], object]) -> Callable[[Example], None]:
    def evaluate(example: Example) -> None:
        check(str(example.parsed))

    return evaluate


def check_yaml(source: str) -> None:
    """Fail unless it is YAML, whose management commands exist."""
    for _ in yaml.safe_load_all(source):
        pass
    check_options(source)


EVALUATORS: dict[str, Callable[[Example], None]] = {
    "console": run_console,
    "pycon": run_doctest,
    "python": run_python,
    "sql": run_sql,
    "dockerfile": _read_by(check_dockerfile),
    "html": _read_by(check_html),
    "html+django": _read_by(check_template),
    "ini": _read_by(check_ini),
    "json": _read_by(json.loads),
    "sh": _read_by(check_shell),
    "toml": _read_by(tomllib.loads),
    "yaml": _read_by(check_yaml),
}
"""How blocks of each language are run or checked."""
