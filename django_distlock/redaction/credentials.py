"""What is said of wrong settings has no part of a password: it ends up in logs and in CI."""

import re
from collections.abc import Iterator
from typing import Final

UNREADABLE_URL: Final = (
    "a URL can't be read. It begins with redis://, rediss:// or unix://, and what is special in "
    "its user and password is percent-encoded: urllib.parse.quote(password, safe='') does that"
)

SHOWN: Final = (
    (re.compile(r"://.*@", re.DOTALL), "://…@"),
    (re.compile(r"://[^\s'\",;)…]+"), "://…"),  # of a URL that somebody cut into pieces
    (re.compile(r"'[^'\s]*@"), "'…@"),
)
"""What may be of a URL with credentials, and what is written instead."""

READERS: Final = {"urllib", "ipaddress"}
"""Modules whose errors quote the part of a URL that they can't make sense of."""


def without_credentials(error: Exception) -> str:
    """Return what the error says, without what may be of a URL's user and password."""
    text = str(error)
    for each in chain(error):
        if _is_about_a_url(each):
            text = text.replace(repr(each), UNREADABLE_URL).replace(str(each), UNREADABLE_URL)
    return _masked(text)


def shows_credentials(error: Exception) -> bool:
    """Tell whether it, or what it came of, may show some."""
    return any(_is_about_a_url(each) or _masked(str(each)) != str(each) for each in chain(error))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and what it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _masked(text: str) -> str:
    for pattern, shown in SHOWN:
        text = pattern.sub(shown, text)
    return text


def _is_about_a_url(error: BaseException) -> bool:
    traceback = error.__traceback__
    if not isinstance(error, ValueError) or traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_globals.get("__name__", "").partition(".")[0] in READERS
