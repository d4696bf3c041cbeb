"""docs/reference/supported-versions.md says what pyproject.toml and Django say."""

from __future__ import annotations

import re
import tomllib

import django
import pytest
from django.db.backends.postgresql.features import DatabaseFeatures as PostgreSQL
from django.db.backends.sqlite3.features import DatabaseFeatures as SQLite

from tests.support.documentation import DOCUMENTS, rows, section

pytestmark = pytest.mark.once

PAGE = "reference/supported-versions.md"
TEXT = (DOCUMENTS / PAGE).read_text("utf-8")
PROJECT = tomllib.loads((DOCUMENTS.parent / "pyproject.toml").read_text("utf-8"))["project"]


def by_name(text: str) -> dict[str, list[str]]:
    """Return the cells of the tables in a text, by the first of each row."""
    return {name.strip("`"): cells for name, *cells in rows(text)}


def test_python_and_django_are_those_of_the_classifiers() -> None:
    """And the lowest ones are what an installation asks for."""
    documented = by_name(TEXT.partition("\n## ")[0])
    prefixes = {"Python": "Programming Language :: Python :: ", "Django": "Framework :: Django :: "}
    for name, prefix in prefixes.items():
        found = [each.removeprefix(prefix) for each in PROJECT["classifiers"] if prefix in each]
        versions = [each for each in found if re.fullmatch(r"\d\.\d+", each)]
        assert documented[name] == [f"{versions[0]} or later", ", ".join(versions)]
    assert PROJECT["requires-python"] == ">=3.11"
    assert PROJECT["dependencies"] == ["django>=5.2"]


def test_databases_are_those_that_this_django_takes() -> None:
    """Of the two whose limits need no connection."""
    documented = by_name(section(PAGE, "Databases"))[".".join(map(str, django.VERSION[:2]))]
    for cell, features in (documented[0], PostgreSQL), (documented[3], SQLite):
        assert tuple(map(int, cell.split("."))) == features.minimum_database_version


def test_extras_have_the_lowest_versions_of_the_project() -> None:
    """Each extra is there, and no other."""
    documented = by_name(section(PAGE, "Libraries"))
    extras = PROJECT["optional-dependencies"]
    assert documented == {
        name: [", ".join(each.replace(">=", " ") for each in needed)]
        for name, needed in extras.items()
    }


def test_status_and_licence_are_those_of_the_package() -> None:
    """The classifier says what the page calls beta."""
    assert "Development Status :: 4 - Beta" in PROJECT["classifiers"]
    assert by_name(TEXT)["licence"] == [PROJECT["license"]]
