"""The names of the keys that belong to a lock."""

from .places import Keys


class KeySpace:
    """The keys of a store's locks; they begin with the prefix of its cache."""

    def __init__(self, prefix: str) -> None:
        self._start = f"{prefix}distlock:{{"

    def lock(self, semaphore: str) -> str:
        """Return the key that exists while the lock is held."""
        return f"{self._start}{_encode(semaphore)}}}"

    def all(self, semaphore: str) -> Keys:
        """Return the keys of the lock, of its last token and of its queue: all in one slot."""
        lock = self.lock(semaphore)
        return lock, f"{lock}:token", f"{lock}:queue"

    def pattern(self, prefix: str) -> str:
        """Return a pattern for SCAN that matches locks whose semaphores begin so."""
        return _escape(self._start + _encode(prefix)) + "*}"

    def semaphore(self, key: str) -> str:
        """Return the semaphore of a lock's key."""
        return _decode(key.removeprefix(self._start).removesuffix("}"))


def _encode(semaphore: str) -> str:
    """Encode braces: a cluster computes the slot from what stands between the first two."""
    if "%" in semaphore or "{" in semaphore or "}" in semaphore:
        return semaphore.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return semaphore


def _decode(encoded: str) -> str:
    return encoded.replace("%7D", "}").replace("%7B", "{").replace("%25", "%")


def _escape(text: str) -> str:
    """Escape the characters that mean something in a pattern."""
    return "".join(f"\\{each}" if each in "*?[]^-\\" else each for each in text)
