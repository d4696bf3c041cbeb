"""A Memcached server whose answers a test sets."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any, Self


class ScriptedServer:
    """A server that answers each command as set, after so many seconds of the test's clock."""

    def __init__(self, now: list[float] | None = None, **answers: tuple[float, str]) -> None:
        self.now = now or [0]
        self.answers = answers
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.asked: list[str] = []
        self.lines: list[str] = []
        self.threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exception: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(30)

    def _start(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._start(self._serve, self.listener.accept()[0])

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines, suppress(OSError):
            for line in lines:
                command = line.split()[0].decode()
                if command not in self.answers:  # the value, or "quit"
                    continue
                self.asked.append(command)
                self.lines.append(line.decode())
                delay, answer = self.answers[command]
                self.now[0] += delay
                connection.sendall(answer.encode())
