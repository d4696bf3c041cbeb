"""What runs the documentation's code notices when it doesn't work."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

for library in ("markdown_it", "sybil", "yaml"):
    pytest.importorskip(library)
pytestmark = [
    pytest.mark.once,
    pytest.mark.usefixtures("database", "default_store"),
]

from tests.documentation.pages import run, unknown_blocks  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Return where a test writes its page."""
    return tmp_path / "page.md"


WORKING = {
    "python": "number = 1\nassert number",
    "pycon": ">>> 1 + 1\n2",
    "sql": "SELECT '1%';\nSELECT 2;",
    "ini": "[Service]\nExecStart=/srv/python manage.py list_locks --watch",
    "dockerfile": "FROM python\n# once\nRUN python manage.py clear_stale_locks",
    "html": "<p>One<br>two</p>",
    "html+django": "{% if locks %}<b>{{ locks }}</b>{% endif %}",
    "sh": "if true; then\n  python manage.py list_locks --format json | head\nfi",
    "json": "{}",
    "toml": "a = 1",
    "yaml": 'command: "python manage.py list_locks"',
    "console": """\
        $ DJANGO_DEBUG=1 python manage.py list_locks  # every store
        $ python manage.py release_lock 1234collectPayment \\
            --no-input
        ...1234collectPayment...
        $ echo $?
        1
        $ python -m pip install "django-distlock[redis]"
        $ tox run -e docs,py313-django61
        $ curl -si -X POST -H "Accept: text/plain" -d a=1 http://127.0.0.1:8000/nowhere
        HTTP/1.1 404 Not Found
        ...""",
}
BROKEN = {
    "python": "1 / 0",
    "pycon": ">>> 1 + 1\n3",
    "sql": "SELEKT 1",
    "ini": "[Service]\nExecStart=/srv/python manage.py list_locks --unknown",
    "dockerfile": "FORM python",
    "html": "<p><b></p>",
    "html+django": "{% if %}",
    "sh": "if true; then",
    "json": "{",
    "toml": "a =",
    "yaml": "command: python manage.py list_lock",
    "console": "$ python manage.py list_locks --format json\nnothing",
}
BROKEN_COMMANDS = [
    "list_locks",
    "$ unknown",
    "$ pip install django-distlock[rabbits]",
    "$ tox -e unknown",
]


def write(page: Path, language: str, block: str) -> None:
    """Write a page with one block."""
    page.write_text(f"# Page\n\n```{language}\n{dedent(block)}\n```\n")


@pytest.mark.parametrize(
    ("language", "block"),
    [
        *WORKING.items(),
        ("html+django", '{% extends "base.html" %}{% block b %}<b></b>{% endblock %}'),
    ],
)
def test_block_that_works_passes(page: Path, language: str, block: str) -> None:
    """Each language has a block here."""
    write(page, language, block)
    run(page)


@pytest.mark.parametrize(
    ("language", "block"),
    [*BROKEN.items(), *(("console", command) for command in BROKEN_COMMANDS)],
)
def test_block_that_fails_is_named(page: Path, language: str, block: str) -> None:
    """The message has its page and line."""
    write(page, language, block)
    with pytest.raises(Exception) as failure:  # noqa: PT011
        run(page)
    assert f"{page}:3: " in failure.value.__notes__[0]


def test_curl_requests_the_views_of_the_page(page: Path) -> None:
    """A page that has `urlpatterns` shows what its own views answer."""
    page.write_text(
        dedent("""\
            ```python
            from django.http import HttpResponse
            from django.urls import path

            urlpatterns = [path("paid/", lambda request: HttpResponse("Paid."))]
            ```
            ```console
            $ curl http://127.0.0.1:8000/paid/
            Paid.
            ```
            """)
    )
    run(page)


@pytest.mark.parametrize(
    "block",
    ["```\n1\n```", "```ruby\n1\n```", "    indented", "```{code-block} python\n1\n```"],
    ids=["no-language", "unknown-language", "indented", "directive"],
)
def test_block_that_nothing_runs_is_found(page: Path, block: str) -> None:
    """So is one that GitHub would show differently."""
    page.write_text(f"# Page\n\n{block}\n\n```text\nfine\n```\n")
    [found] = unknown_blocks(page)
    assert f"{page}:3: " in found
