"""Remove passwords from errors about settings, which end up in logs and in CI."""

import re
from collections.abc import Iterator
from typing import Final

UNREADABLE_URL: Final = (
    "a URL can't be read. It begins with redis://, rediss:// or unix://, and special characters "
    "in its user and password are percent-encoded: urllib.parse.quote(password, safe='') does that"
)

SHOWN: Final = (
    (re.compile(r"://.*@", re.DOTALL), "://…@"),
    (re.compile(r"://[^\s'\",;)…]+"), "://…"),  # a part of a URL that was cut into pieces
    (re.compile(r"'[^'\s]*@"), "'…@"),
)
"""Patterns of URLs with credentials, and their replacements."""

READERS: Final = {"urllib", "ipaddress"}
"""Modules whose errors quote the part of a URL that they can't parse."""


def without_credentials(error: Exception) -> str:
    """Return the error's message without the user and password of a URL."""
    text = str(error)
    for each in chain(error):
        if _is_about_a_url(each):
            text = text.replace(repr(each), UNREADABLE_URL).replace(str(each), UNREADABLE_URL)
    return _masked(text)


def shows_credentials(error: Exception) -> bool:
    """Return whether the error, or one that caused it, may show a user or password."""
    return any(_is_about_a_url(each) or _masked(str(each)) != str(each) for each in chain(error))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error, its cause, the cause of that, and so on."""
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
