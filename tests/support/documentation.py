"""Run the documentation's examples in tests."""

import re
import sys
from types import ModuleType
from typing import Any

from tests.support.paths import ROOT

DOCUMENTS = ROOT / "docs"


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
