"""A Sphinx extension: what machines read of the site.

Language models get llms.txt, llms-full.txt and each page in Markdown, in the order of the contents,
without what readers don't see. Search engines and link previews get a description of each page.
"""

from __future__ import annotations

import posixpath
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.io import StringOutput
from sphinx.builders.text import TextBuilder
from sphinx.writers.text import TextWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

HIDDEN = re.compile(r"^(`{3,})\{toctree\}.*?^\1\n|<!--.*?-->\n?", re.MULTILINE | re.DOTALL)
DIRECTIVE = re.compile(r"^`{3,}\{(?:eval-rst|auto)", re.MULTILINE)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]+)?\)")
BLANK = re.compile(r"\n{3,}")
LINKED = re.compile(r"\[([^\]]*)\]\([^)]*\)")
DESCRIPTION_LENGTH = 200


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write the files next to the pages."""
    if exception or app.builder.name != "html":
        return
    target, base = Path(app.outdir), app.config.html_baseurl
    lines = [f"# {app.config.project}", "", f"> {app.config.llms_summary}"]
    lines += ["", f"The whole text of these pages is in [llms-full.txt]({base}llms-full.txt)."]
    texts = []
    for page in contents(app, app.config.root_doc):
        text = markdown(app, page)
        (target / f"{page}.md").write_text(text, "utf-8")
        texts.append(f"<!-- {base}{page}.html -->\n\n{text}")
        title = app.env.titles[page].astext()
        if page.endswith("/index"):
            lines += ["", f"## {title}", ""]
        elif page == app.config.root_doc:
            lines += ["", "## Start", ""]
        lines.append(f"- [{title}]({base}{page}.md): {summary(app, page)}")
    (target / "llms.txt").write_text("\n".join([*lines, ""]), "utf-8")
    (target / "llms-full.txt").write_text("\n".join(texts), "utf-8")


def contents(app: Sphinx, page: str) -> Iterator[str]:
    """Yield a page and those below it, in the order of the contents."""
    yield page
    for below in app.env.toctree_includes.get(page, []):
        yield from contents(app, below)


def markdown(app: Sphinx, page: str) -> str:
    """Return the text of a page, with absolute links and what its directives stand for."""
    source = Path(app.env.doc2path(page)).read_text("utf-8")
    if DIRECTIVE.search(source):
        return plain_text(app, page)

    def absolute(link: re.Match[str]) -> str:
        other = posixpath.normpath(posixpath.join(posixpath.dirname(page), link[1]))
        if other.endswith(".md"):
            return f"]({app.config.html_baseurl}{other[:-3]}.html{link[2] or ''})"
        return f"]({app.config.llms_files}{other})"

    return BLANK.sub("\n\n", LINK.sub(absolute, HIDDEN.sub("", source)))


def plain_text(app: Sphinx, page: str) -> str:
    """Return a page as text, with the docstrings that its directives show."""
    builder = TextBuilder(app, app.env)
    builder.init()
    writer = TextWriter(builder)
    doctree = app.env.get_and_resolve_doctree(page, builder, tags=app.tags)
    writer.write(doctree, StringOutput(encoding="unicode"))
    _, text = writer.output.split("\n\n", 1)
    return f"# {app.env.titles[page].astext()}\n\n{text}"


def summary(app: Sphinx, page: str) -> str:
    """Return what the table of its section says of a page; or how the page begins."""
    section, _, name = page.rpartition("/")
    rows = Path(app.srcdir, section, "index.md").read_text("utf-8").splitlines() if section else []
    for row in rows:
        if row.startswith("|") and f"({name}.md)" in row:
            return LINKED.sub(r"\1", row.strip("| ").split(" | ")[-1])
    return beginning(app.env.get_doctree(page))


def beginning(doctree: nodes.document) -> str:
    """Return the first paragraph, cut to what a search engine shows."""
    text = " ".join(next((one.astext() for one in doctree.findall(nodes.paragraph)), "").split())
    return textwrap.shorten(text, DESCRIPTION_LENGTH, placeholder=" …")


def describe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give the page's template a description."""
    if doctree is not None:
        context["description"] = beginning(doctree)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("llms_summary", "", "env")
    app.add_config_value("llms_files", "", "env")
    app.connect("html-page-context", describe)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
