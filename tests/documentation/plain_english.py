"""The rules of plain English that a regular expression can hold, for pages in Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markdown_it.token import Token

LONGEST_LINE = 100
MOST_LINES = 4
"""Of a paragraph, or of an item in a list."""
MOST_WORDS = 40
"""Of a sentence."""

WORDS = {
    r"\blets?\b(?! go)": "allow, or name what happens",
    r"\blet(s|ting)? go\b|\bg(ive|ives|ave|iving) back\b|\babandon(s|ed|ing)?\b": "release",
    r"\b(see|sees|saw) to (it|that)\b": "say what is done",
    r"\bas is\b": "unchanged",
    r"\bsuch\b(?! as\b)": "name the thing",
    r"\b(thereby|hereby|whereby|thereof|wherein|hitherto)\b": "two sentences",
    r"\b(whoever|whomever|whosoever|whom)\b": "a noun: the worker that …",
    r"\b[Oo]nly (then|here|there|so|thus) (is|are|was|does|do|did|can|has|have|will)\b": (
        "subject, verb: it is … only then"
    ),
    r"\bso that\b[^.;:]*\bso that\b": "two sentences",
}
"""What isn't written, and what is written instead."""

WITHOUT_NOUN = re.compile(
    r"""(?: ^ | [.;:!?(] \s* | \b(?:
        a|about|all|also|are|as|ask|asks|asked|at|but|by|decide|decides|except|find|finds|for|from
        |if|in|into|is|know|knows|known|learn|learns|matter|matters|not|notices?|of|on|only|see
        |sees|say|says|said|show|shows|shown|tell|tells|told|than|that|then|this|those|to|was|were|what
        |when|where|with
    ) \s+ )
    (?:who|whose)\b | \b(?:and|or)\ who\b""",
    re.VERBOSE | re.IGNORECASE,
)
"""`who` and `whose` after something that can't be the noun they refer to."""

PROPER_NAMES = re.compile(
    "Celery|Channels|Cluster|Debian|Django|Docker|Dramatiq|Grafana|Gunicorn|Huey|Kubernetes|Laravel"
    "|Linux|Lock|Lua|Memcached|Ninja|Pottery|Procrastinate|Prometheus|Python|Redis|Redlock|Sentinel"
    "|Sentry|Spin|Sphinx|Uvicorn|Windows"
)
"""Words that have a capital in the middle of a heading."""


PERSON = re.compile(
    rf"{WITHOUT_NOUN.pattern} | \"\s*(?:who|whose)\b | \b(?:whoever|whomever|whom)\b",
    re.VERBOSE | re.IGNORECASE,
)
"""The same in code, where a text begins with a quotation mark."""


def persons(code: str) -> list[str]:
    """Return where comments and texts speak of a person or a process without a noun."""
    line = re.sub(r"\s+(?:(?:#|--|\*) )?\s*", " ", code)
    return [line[max(0, one.start() - 30) : one.end() + 30] for one in PERSON.finditer(line)]


class Block(NamedTuple):
    """A heading, a paragraph, an item of a list, or a cell of a table."""

    kind: str
    line: int
    text: str
    """Without code, which is `…`."""
    lines: list[str]
    """As they are written; of a cell, none."""


def complaints(page: str) -> list[str]:
    """Return what is wrong with a page, each with its line."""
    return [f"{block.line}: {found}" for block in blocks(page) for found in problems(block)]


def problems(block: Block) -> Iterator[str]:
    """Yield what is wrong with a block."""
    for pattern, instead in WORDS.items():
        for found in re.finditer(pattern, block.text, re.IGNORECASE):
            yield f"{found[0]!r}: write {instead}"
    for found in WITHOUT_NOUN.finditer(block.text):
        yield f"{found[0].strip()!r}: write the noun, as in 'the worker that …'"
    if block.kind == "heading":
        for word in capitals(block.text):
            yield f"{word!r} has a capital in a heading"
    elif block.lines:
        yield from excesses(block)


def excesses(block: Block) -> Iterator[str]:
    """Yield what is too long in a block of prose."""
    if len(block.lines) > MOST_LINES:
        yield f"{len(block.lines)} lines: write {MOST_LINES} at most, or a list"
    for line in block.lines:
        if len(line) > LONGEST_LINE and not has_long_word(line):
            yield f"a line of {len(line)} characters: write {LONGEST_LINE} at most"
    for sentence in re.split(r"[.:;?!]\s", block.text):
        if (words := len(sentence.split())) > MOST_WORDS:
            yield f"{words} words in a sentence: write {MOST_WORDS} at most"


def has_long_word(line: str) -> bool:
    """Return whether a link or a piece of code leaves no room to break the line."""
    words = re.sub(r"`[^`]+`", lambda code: code[0].replace(" ", "_"), line).split()
    return max(map(len, words)) > LONGEST_LINE / 2


def capitals(heading: str) -> list[str]:
    """Return the words after the first that begin with a capital, and are no names."""
    sentences = re.split(r"[:.?!]\s+", heading)
    words = [word for each in sentences for word in re.findall(r"[\w-]+", each)[1:]]
    return [
        word
        for word in words
        if re.fullmatch(r"[A-Z][a-z-]+", word) and not PROPER_NAMES.fullmatch(word)
    ]


def blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of a page that have text."""
    source = re.sub(r"^(---\n.*?\n---|:::.*)$", "", page, flags=re.MULTILINE)
    lines, kind = source.splitlines(), ""
    for token in MarkdownIt().enable("table").parse(source):
        if token.type.endswith("_open"):
            kind = token.type.removesuffix("_open")
        elif token.type == "inline" and token.map:
            start, end = token.map
            written = [] if kind in {"td", "th", "heading"} else lines[start:end]
            yield Block(kind, start + 1, words_of(token), written)


def words_of(token: Token) -> str:
    """Return the text of an inline token in one line."""
    children = token.children or []
    parts = [
        {"code_inline": "`…`", "softbreak": " ", "hardbreak": " ", "html_inline": ""}.get(
            child.type, child.content
        )
        for child in children
        if child.type != "image"
    ]
    return "".join(parts)
