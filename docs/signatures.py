"""Show the public names of the package as their users think of them."""

from __future__ import annotations

import re
from types import FunctionType
from typing import Any

from docutils import nodes
from sphinx.domains.python import PyXRefRole

from django_distlock import Lease

NOT_FOR_CALLERS = {
    r", \*\*unknown: \S*Never": "",  # takes other libraries' arguments, to refuse them
    r" \| \S*BackendTtl": "",  # the type of the default
    r"\S*CallableOrNone_co": "Callable | None",
    r"\S*\.Callable\[\[\.\.\.\], \w+\]": "Callable",
    r"<prometheus_client[^>]*>": "REGISTRY",
    r" ~[\w.]*\.(\w+)": r" \1",
}
"""What is in the signatures of public functions, and what the reference shows instead."""


def shorten(*arguments: Any) -> tuple[str, str] | None:
    """Return a signature, and what it returns, as a caller thinks of them."""
    *_, signature, returned = arguments
    if not signature:
        return None
    for pattern, instead in NOT_FOR_CALLERS.items():
        signature = re.sub(pattern, instead, signature)
    return signature, returned or ""


def leave_out_numbers(*arguments: Any) -> None:
    """Empty the docstring that Python itself gives to a field of a NamedTuple."""
    lines = arguments[-1]
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()


def link_name(_: str, raw: str, text: str, *more: Any, **options: Any) -> Any:
    """Show `code` in a docstring as code; link what is a name on the page."""
    name = re.fullmatch(r"([\w.]+)(?:\(\))?", text)
    if name is None:
        return [nodes.literal(raw, text)], []
    return PyXRefRole()("py:obj", raw, f"{text} <{name[1]}>", *more, **options)


def setup(app: Any) -> None:
    """Prepare what autodoc reads."""
    app.add_role("name", link_name)
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-process-docstring", leave_out_numbers)
    for each in vars(Lease).values():  # that it is abstract is no matter of its users
        function = getattr(each, "fget", each)
        if isinstance(function, FunctionType):
            vars(function).pop("__isabstractmethod__", None)
