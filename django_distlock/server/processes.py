"""The client processes that listen for offers of locks."""

from typing import Protocol

from .errors import UnknownProcess
from .locks import Session
from .protocol import Message


class Recipient(Protocol):
    """A connection on which a process listens."""

    def send(self, message: Message) -> bool:
        """Send a message; return False if the connection has ended."""
        ...


class Process:
    """A client process, known by its connection that listens."""

    def __init__(self, connection: Recipient) -> None:
        self.connection = connection
        self.session = Session()

    def send(self, message: Message) -> bool:
        """Send a message; return False if the process can't receive it any more."""
        return self.connection.send(message)


class Processes:
    """The processes that listen, by the name that each has chosen."""

    def __init__(self) -> None:
        self.by_name: dict[str, Process] = {}

    def __len__(self) -> int:
        return len(self.by_name)

    def find(self, name: object) -> Process:
        """Return the process; UnknownProcess if none of this name listens."""
        process = self.by_name.get(name) if type(name) is str else None
        if process is None:
            raise UnknownProcess("This process has no connection on which it listens.")
        return process

    def listen(self, name: str, connection: Recipient) -> None:
        """Send what is for this process to this connection, instead of an earlier one."""
        process = self.by_name.get(name)
        if process is None:
            self.by_name[name] = Process(connection)
        else:
            process.connection = connection

    def remove(self, name: str, connection: Recipient) -> Session | None:
        """Return the session that ends with this connection; None if another one replaced it."""
        process = self.by_name.get(name)
        if process is None or process.connection is not connection:
            return None
        del self.by_name[name]
        return process.session
