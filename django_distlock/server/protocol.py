"""What a lock server and its clients say to each other: docs/protocol.md has it with an example.

JSON objects, one a line, in UTF-8. Both sides prove that they know the secret before anything else
is said, without sending it: HMAC (RFC 2104) with SHA-256 over random numbers of both.
"""

import hmac
import json
import os
from hashlib import sha256
from typing import Any, Final

VERSION: Final = 1
DEFAULT_PORT: Final = 7433
MAX_FRAME: Final = 65_536
"""Bytes that a request has at most, unless the server is told otherwise."""
SHORTEST_SECRET: Final = 16
"""Characters. It is to be guessed by nobody who hears a challenge and its answer."""


class BadFrame(ValueError):
    """What came is no frame: nothing that follows on this connection would be understood."""


def encode(message: dict[str, Any]) -> bytes:
    """Return the line; ValueError if JSON has no such number."""
    return _encode(message).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Return what a line says; BadFrame if that is no JSON object."""
    try:
        message = parse(line)
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"not JSON in UTF-8: {error}") from error
    if type(message) is not dict:
        raise BadFrame(f"not a JSON object, but {type(message).__name__}")
    return message


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_encode: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_decoder: Final = json.JSONDecoder(parse_constant=_refuse)


def parse(text: bytes) -> Any:
    """Return what the JSON says; ValueError or RecursionError if it is none, or not in UTF-8."""
    return _decoder.decode(text.decode())


def new_nonce() -> str:
    """Return a number that was never used: 256 random bits."""
    return os.urandom(32).hex()


def prove(secret: bytes, side: str, challenge: str, nonce: str) -> str:
    """Return what only who knows the secret can say on this connection; `side` says it."""
    text = f"distlock {VERSION} {side} {challenge} {nonce}"
    return hmac.new(secret, text.encode(errors="surrogatepass"), sha256).hexdigest()


def is_proof(said: object, secret: bytes, side: str, challenge: str, nonce: str) -> bool:
    """Tell whether that was said, in a time that tells nothing."""
    expected = prove(secret, side, challenge, nonce)
    return isinstance(said, str) and hmac.compare_digest(
        said.encode(errors="replace"), expected.encode()
    )
