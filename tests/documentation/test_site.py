"""The site can be built: each link leads somewhere, and each page can be found and read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from configparser import ConfigParser
from functools import partial
from html import unescape
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

pytest.importorskip("sphinx")
yaml = pytest.importorskip("yaml")
pytestmark = pytest.mark.once

from tests.support.browser import opened_page  # noqa: E402
from tests.support.documentation import DOCUMENTS  # noqa: E402
from tests.support.paths import ROOT  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECTIONS = sorted(page.parent for page in DOCUMENTS.glob("*/index.md"))
SHOW = """html => {
    document.querySelector("article").innerHTML = html;
    return document.documentElement.scrollWidth - innerWidth;
}"""


class Requests(HTMLParser):
    """What a browser loads for a page, the links in it, and its title."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: set[str] = set()
        self.headings = 0
        text = page.read_text("utf-8")
        self.title = re.findall(r"<title>(.+)</title>", text)[0]  # later ones are of icons
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if source := given.get("src"):
            self.loaded.append(source)
        if tag == "link" and not {"canonical", "index", "next", "prev", "search"} & {given["rel"]}:
            self.loaded.append(given["href"])
        if tag == "a":
            self.links.add(given.get("href", ""))
        self.headings += tag == "h1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `tox run -e docs` does, and return where it is."""
    target = tmp_path_factory.mktemp("site")
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--builder", "html"]
    options += ["-D", "toc_object_entries=0"]  # takes a quarter of the time, for one page
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(target)],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return target


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Requests]:
    """Return each page that has a source, by its address in the site."""
    return {
        page: Requests(site / page)
        for source in DOCUMENTS.rglob("*.md")
        if (page := str(source.relative_to(DOCUMENTS).with_suffix(".html")))
    }


def test_every_page_has_a_title_and_is_in_the_contents(pages: dict[str, Requests]) -> None:
    """The landing page links to all of them."""
    contents = pages["index.html"].links | {"index.html"}
    assert pages.keys() - contents == set()
    assert {name for name, page in pages.items() if page.headings != 1} == set()
    assert len({page.title for page in pages.values()}) == len(pages)


def test_site_loads_nothing_from_elsewhere(site: Path, pages: dict[str, Requests]) -> None:
    """No fonts, scripts or pictures of another host: readers are not watched."""
    loaded = {address for page in pages.values() for address in page.loaded}
    for sheet in site.rglob("*.css"):
        loaded.update(re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')]+)", sheet.read_text("utf-8")))
    assert {one for one in loaded if urlsplit(one).netloc} == set()


def test_page_that_does_not_exist_has_an_answer(site: Path) -> None:
    """It is shown at any address, so its own links start at the root of the host."""
    missing = Requests(site / "404.html")
    links = missing.links | {*missing.loaded}
    assert {one for one in links if not one.startswith(("/", "#", "https:", "data:"))} <= {""}
    assert any(link.endswith("/tutorial.html") for link in missing.links)


def test_language_models_read_the_same_pages(site: Path, pages: dict[str, Requests]) -> None:
    """llms.txt lists them in the order of the contents; a second file has their whole text."""
    listed = re.findall(
        r"^- \[.+\]\(https:.+/stable/(\S+)\.md\): \S", read(site, "llms.txt"), re.MULTILINE
    )
    assert listed[:2] == ["index", "tutorial"]
    assert sorted(f"{page}.html" for page in listed) == sorted(pages)
    text = read(site, "llms-full.txt")
    found = [text.index(f"/stable/{page}.html -->") for page in listed]
    assert found == sorted(found)
    assert not re.search(r"\{toctree\}|\{eval-rst\}|invisible-code|\]\(\.\./", text)
    assert read(site, "tutorial.md") in text


def test_signatures_are_for_readers(site: Path) -> None:
    """They have no sentinel's name, address of an object, or argument that nobody gives."""
    pages = [read(site, f"reference/{name}.html") for name in ("api", "store-interface")]
    shown = " ".join(unescape(re.sub("<[^>]+>", "", "".join(pages))).split())
    unreadable = ("BackendTtl", "unknown:", " at 0x", "Alias for", "abstract property", "~")
    assert [text for text in unreadable if text in shown] == []
    assert "ttl: float | None = <the backend's>" in shown


def read(site: Path, name: str) -> str:
    """Return the text of a file of the site."""
    return (site / name).read_text("utf-8")


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_table_of_a_section_has_each_of_its_pages(section: Path) -> None:
    """A reader on GitHub sees no other contents."""
    table = re.findall(r"^\|.*\|$", (section / "index.md").read_text("utf-8"), re.MULTILINE)
    pages = {page.name for page in section.glob("*.md")} - {"index.md"}
    assert {page for page in pages if not any(f"({page})" in row for row in table)} == set()


@pytest.fixture(scope="module")
def articles(site: Path, pages: dict[str, Requests]) -> Iterator[tuple[str, str]]:
    """Return the text of each page, as HTML."""
    return ((page, read(site, page).split("<article", 1)[1]) for page in pages)


def test_read_the_docs_builds_the_same_site() -> None:
    """It installs the groups of tox.ini, and takes the same configuration."""
    settings = yaml.safe_load(read(ROOT, ".readthedocs.yaml"))
    tox = ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    [install] = [one for one in settings["build"]["jobs"]["install"] if "--group" in one]
    groups = re.findall(r"--group (\S+)", install)
    assert groups == tox["testenv:docs"]["dependency_groups"].split()
    assert (
        f"py{settings['build']['tools']['python']}".replace(".", "")
        == (tox["testenv:docs"]["base_python"])
    )
    assert settings["sphinx"] == {"configuration": "docs/conf.py", "fail_on_warning": True}


class QuietHandler(SimpleHTTPRequestHandler):
    """A server of files that writes no log."""

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """Serve the site; return where."""
    handler = partial(QuietHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.needs("chromium")
def test_pages_fit_a_phone_and_can_be_searched(
    address: str, articles: Iterator[tuple[str, str]]
) -> None:
    """Wide tables and code scroll by themselves; the search needs no server of its own."""
    with opened_page() as page:
        page.set_viewport_size({"width": 390, "height": 844})
        page.goto(f"{address}/tutorial.html")
        widths = {name: page.evaluate(SHOW, f"<div{html}") for name, html in articles}
        page.goto(f"{address}/search.html?q=pgbouncer")
        page.get_by_role("link", name="Use PgBouncer").first.wait_for()
    assert {name: width for name, width in widths.items() if width} == {}
