"""The handshake: the client proves that it knows the secret, and so does the server."""

import re
from typing import Final

from .limits import Limits
from .protocol import VERSION, Message, is_proof, new_nonce, prove

PROCESS_NAME: Final = re.compile("[0-9a-f]{32}")


class HandshakeFailed(Exception):
    """The client is turned away."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Handshake:
    """The handshake of one connection, with a challenge of its own."""

    def __init__(self, secret: bytes, limits: Limits) -> None:
        self._secret = secret
        self._limits = limits
        self._challenge = new_nonce()

    def greeting(self) -> Message:
        """Return the server's first message."""
        return {"distlock": VERSION, "challenge": self._challenge}

    def complete(self, hello: Message) -> tuple[Message, str | None]:
        """Return the answer to the client's first message, and the name of a process that listens.

        HandshakeFailed if the client doesn't prove that it knows the secret.
        """
        if hello.get("distlock") != VERSION:
            raise HandshakeFailed("version", f"The server speaks version {VERSION} only.")
        nonce, process = hello.get("nonce"), hello.get("process")
        if not isinstance(nonce, str) or not is_proof(
            hello.get("answer"), self._secret, "client", self._challenge, nonce
        ):
            raise HandshakeFailed("secret", "The secret is not the server's.")
        if process is not None and not (
            isinstance(process, str) and PROCESS_NAME.fullmatch(process)
        ):
            raise HandshakeFailed("invalid", "process is 32 hexadecimal digits, or null.")
        return self._terms(nonce), process

    def _terms(self, nonce: str) -> Message:
        return {
            "proof": prove(self._secret, "server", self._challenge, nonce),
            "max_ttl": self._limits.max_ttl,
            "max_frame": self._limits.max_frame,
            "idle": self._limits.idle,
        }
