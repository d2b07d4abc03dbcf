"""The rig that cuts brokers off does what its methods say."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.integration.black_hole import BlackHole, in_front_of
from tests.supervision import processes

SECONDS = 10


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Something that accepts connections, and does not say anything by itself."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(SECONDS)
        yield listening


def url_of(listening: socket.socket) -> str:
    return f"redis://127.0.0.1:{listening.getsockname()[1]}/0"


def connect(hole: BlackHole) -> socket.socket:
    parts = urlsplit(hole.url)
    return socket.create_connection((parts.hostname, parts.port or 0), timeout=SECONDS)


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_a_hole_that_is_shut_closes_every_connection_until_it_is_healed(
    server: socket.socket,
) -> None:
    with in_front_of(url_of(server)) as hole:
        before = connect(hole)
        served, _ = server.accept()
        hole.shut()
        assert is_closed(before)
        with connect(hole) as meanwhile:
            assert is_closed(meanwhile)
        hole.heal()
        with connect(hole) as after, server.accept()[0] as answering:
            answering.sendall(b"x")
            assert after.recv(1) == b"x"
        before.close()
        served.close()


def test_a_server_that_is_down_closes_connections_and_is_found_when_it_is_up_again() -> None:
    port = processes.free_port()
    with in_front_of(f"redis://127.0.0.1:{port}/0") as hole:
        with connect(hole) as too_early:
            assert is_closed(too_early)
        with socket.create_server(("127.0.0.1", port)) as listening:
            listening.settimeout(SECONDS)
            with connect(hole) as client, listening.accept()[0] as answering:
                answering.sendall(b"x")
                assert client.recv(1) == b"x"
