"""A TCP proxy that loses replies, to be put between a client and a real server."""

import socket
import threading
from contextlib import suppress
from typing import Self


class LossyProxy:
    """Passes bytes on, until it is told to lose replies: then it cuts the connection instead.

    The request has reached the server by then, and the server has answered it.
    """

    def __init__(self, host: str, port: int) -> None:
        self.server = (host, port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.marker = b""
        self.losses = 0
        self.threads: list[threading.Thread] = []
        self.sockets: list[socket.socket] = [self.listener]

    def lose_replies(self, marker: bytes, times: int) -> None:
        """Lose the replies to the next requests that contain the marker."""
        self.marker, self.losses = marker, times

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exception: object) -> None:
        for open_socket in self.sockets:
            with suppress(OSError):  # closed by the other side
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()
        for thread in self.threads:
            thread.join(30)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(self.server)
                self.sockets += [client, server]
                losing = threading.Event()
                self._start(self._requests, client, server, losing)
                self._start(self._replies, client, server, losing)

    def _requests(
        self, client: socket.socket, server: socket.socket, losing: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self.losses and self.marker in data:
                    self.losses -= 1
                    losing.set()
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _replies(
        self, client: socket.socket, server: socket.socket, losing: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if losing.is_set():
                    break
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
