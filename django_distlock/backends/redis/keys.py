"""The names of the keys that belong to a lock."""

from collections.abc import Iterator

from .places import Keys


class KeySpace:
    """The keys of a store's locks; they begin with the prefix of its cache."""

    def __init__(self, prefix: str) -> None:
        self._start = f"{prefix}distlock:{{"
        self.pauses = f"{prefix}distlock:pauses"
        """The key with the pauses of all locks."""

    def lock(self, semaphore: str) -> str:
        """Return the key that exists while the lock is held."""
        return f"{self._start}{_encode(semaphore)}}}"

    def all(self, semaphore: str) -> Keys:
        """Return the keys of the lock, its last token and its queue, and that of the pauses.

        The first three are in one slot.
        """
        lock = self.lock(semaphore)
        return lock, f"{lock}:token", f"{lock}:queue", self.pauses

    def start(self, prefix: str) -> str:
        """Return the start of the keys of all locks whose semaphores begin with the prefix."""
        return self._start + _encode(prefix)

    def pattern(self, prefix: str) -> str:
        """Return a pattern for SCAN: the locks whose semaphores begin with the prefix."""
        return _escape(self.start(prefix)) + "*}"

    def semaphores(self, lines: str) -> Iterator[str]:
        """Yield the semaphores of locks' keys, of which there is one a line."""
        for encoded in lines.removeprefix(self._start)[:-1].split("}\n" + self._start):
            yield _decode(encoded)

    def prefix(self, start: str) -> str:
        """Return the prefix for which start() returns this."""
        return _decode(start.removeprefix(self._start))


def _encode(semaphore: str) -> str:
    """Encode braces: a cluster computes the slot from what stands between the first two."""
    if "%" in semaphore or "{" in semaphore or "}" in semaphore:
        return semaphore.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return semaphore


def _decode(encoded: str) -> str:
    if "%" not in encoded:
        return encoded
    return encoded.replace("%7D", "}").replace("%7B", "{").replace("%25", "%")


def _escape(text: str) -> str:
    """Escape the characters that mean something in a pattern."""
    return "".join(f"\\{each}" if each in "*?[]^-\\" else each for each in text)
