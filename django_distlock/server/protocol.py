"""The protocol between a lock server and its clients.

docs/reference/protocol.md describes it by example.

JSON objects, one a line, in UTF-8. Both sides first prove that they know the secret, without
sending it: HMAC (RFC 2104) with SHA-256 over random numbers of both.
"""

import hmac
import json
import os
from hashlib import sha256
from typing import Any, Final

VERSION: Final = 1
DEFAULT_PORT: Final = 7433
MAX_FRAME: Final = 65_536
"""The length of the longest request, in bytes, unless the server is started with another."""
SHORTEST_SECRET: Final = 16
"""Characters. Nobody who reads a challenge and its answer must be able to guess the secret."""

Message = dict[str, Any]


class BadFrame(ValueError):
    """A line is no frame, so nothing after it on this connection can be understood."""


def encode(message: Message) -> bytes:
    """Return the message as a line; ValueError if JSON has no such number."""
    return _encode(message).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Return the message in a line; BadFrame if that is no JSON object."""
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
    """Parse JSON; ValueError or RecursionError if the text is none, or not in UTF-8."""
    return _decoder.decode(text.decode())


def error_message(code: str, text: str) -> Message:
    """Return the message that says why a request, or the connection, failed."""
    return {"error": code, "text": text}


def new_nonce() -> str:
    """Return 256 random bits, which no other connection uses."""
    return os.urandom(32).hex()


def prove(secret: bytes, side: str, challenge: str, nonce: str) -> str:
    """Return the proof, by "client" or "server", that this side of a connection has the secret."""
    text = f"distlock {VERSION} {side} {challenge} {nonce}"
    return hmac.new(secret, text.encode(errors="surrogatepass"), sha256).hexdigest()


def is_proof(given: object, secret: bytes, side: str, challenge: str, nonce: str) -> bool:
    """Compare a proof with the right one, in constant time."""
    expected = prove(secret, side, challenge, nonce)
    return isinstance(given, str) and hmac.compare_digest(
        given.encode(errors="replace"), expected.encode()
    )
