"""Read the documentation in tests, and run its examples."""

import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.support.paths import ROOT

DOCUMENTS = ROOT / "docs"
CODE = re.compile(r"^ *(`{3,})[^\n]*\n.*?^ *\1$", re.MULTILINE | re.DOTALL)


def example(document: str, heading: str) -> Any:
    """Return a module made of the Python code under the heading."""
    text = (DOCUMENTS / document).read_text(encoding="utf-8")
    [section] = re.findall(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
    )
    blocks = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    module = ModuleType(f"{__name__}.{document.removesuffix('.md')}.{heading.replace(' ', '_')}")
    sys.modules[module.__name__] = module  # resolving annotations needs it there
    exec(compile("\n".join(blocks), document, "exec"), vars(module))
    return module


def prose(page: Path) -> str:
    """Return a page without its blocks of code, whose comments look like headings."""
    return CODE.sub("", page.read_text("utf-8"))


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page without code."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for heading in re.findall(r"^#{1,6} (.+?) *$", text, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # a link is its text
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found
