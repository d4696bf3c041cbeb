"""Why a request to a lock server fails."""

from typing import ClassVar


class RequestError(Exception):
    """The request is answered with an error; its connection stays open."""

    code: ClassVar[str]


class Refused(RequestError):
    """The table can't do this now: for another reason than that the lock is held."""

    code = "refused"


class FutureToken(Refused):
    """A token can't have been granted: it is too far ahead of the clock."""


class InvalidRequest(RequestError):
    """The request is malformed, or asks for what is never allowed."""

    code = "invalid"


class UnknownProcess(RequestError):
    """The process that a request names has no connection that listens for offers."""

    code = "process"
