"""docs/reference/admin.md has the columns, states, permissions and attributes of the code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from django.utils.html import strip_tags

from django_distlock.admin import LockAdmin
from django_distlock.admin.shown_lock import WORDS
from django_distlock.models import Lock
from tests.support.admin_pages import LIST, make_held
from tests.support.documentation import section

if TYPE_CHECKING:
    from django.test import Client

PAGE = "reference/admin.md"


def names(heading: str, title: str) -> list[str]:
    """Return the first cells of the table with this title."""
    table = section(PAGE, heading).partition(f"\n| {title} |")[2].split("\n\n")[0]
    return [row.split("|")[1].strip(" `") for row in table.splitlines()[2:]]


@pytest.mark.django_db(databases="__all__")
def test_columns_are_those_of_the_list(viewer: Client) -> None:
    """In their order."""
    make_held("default", "1234collectPayment")
    shown = viewer.get(LIST).content.decode().partition('id="content-main"')[2]
    found = re.findall(r'<th\b[^>]*scope="col"[^>]*>(.*?)</th>', shown, re.DOTALL)
    headings = [" ".join(strip_tags(each).split()) for each in found]
    assert names("The list", "column") == [each for each in headings if each]


def test_states_are_those_of_the_list() -> None:
    """A lock that was released is only on its own page."""
    assert {*names("The list", "state")} == {*map(str, WORDS)} - {"released"}


def test_permissions_are_those_of_the_model() -> None:
    """Those that Django adds to each model aren't used, but for the one to view."""
    own = {codename for codename, _ in Lock._meta.permissions} | {"view_lock"}
    cells = " ".join(names("Permissions", "permission"))
    assert {*re.findall(r"distlock\.(\w+)", cells)} == own


def test_attributes_have_their_defaults() -> None:
    """A method has none."""
    text = section(PAGE, "Your own rules")
    for name, default in re.findall(r"^\| `(\w+)` \| `(\d+)` \|", text, re.MULTILINE):
        assert getattr(LockAdmin, name) == int(default)
    for name in names("Your own rules", "attribute or method"):
        assert hasattr(LockAdmin, name.partition("(")[0])
