"""A way to a server on which packets can vanish: connections stand, and nothing comes back."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

PIECE = 65536


class BlackHole:
    """A TCP proxy that forwards, or, once told to, takes everything and gives nothing."""

    def __init__(self, url: str, port: int) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        login, at, _ = parts.netloc.rpartition("@")
        netloc = f"{login}{at}127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, ""))
        self.connections = 0
        """How often somebody connected."""
        self._swallows = self._is_shut = False
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def swallow(self) -> None:
        """From now on nothing comes through, on old connections and on new ones."""
        self._swallows = True

    def shut(self) -> None:
        """Close all connections, and every new one at once, as a server that is down."""
        self._is_shut = True
        self._end_connections()

    def heal(self) -> None:
        """Let packets through again; connections that lost some are gone."""
        self._end_connections()
        self._swallows = self._is_shut = False

    def cut(self) -> None:
        """Close all connections, as a restarted server or a firewall does; new ones work."""
        self._end_connections()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._end_connections()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            self.connections += 1
            if self._is_shut:
                client.close()
                continue
            self._sockets.append(client)
            if not self._swallows:
                try:
                    server = socket.create_connection(self._target)
                except OSError:  # nobody listens there: nobody does here, then
                    client.close()
                    continue
                self._sockets.append(server)
                self._pump(client, server)
                self._pump(server, client)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        def forward() -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(PIECE):
                    if not self._swallows:
                        target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        self._threads.append(threading.Thread(target=forward, daemon=True))
        self._threads[-1].start()

    def _end_connections(self) -> None:
        while self._sockets:
            held = self._sockets.pop()
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
            held.close()


@contextlib.contextmanager
def in_front_of(url: str) -> Iterator[BlackHole]:
    """Yield a proxy to the broker at ``url``, at first an honest one."""
    hole = BlackHole(url, 5672 if url.startswith("amqp") else 6379)
    try:
        yield hole
    finally:
        hole.close()
