"""The private RabbitMQ: it keeps what is durable over a restart, and dies with its supervisor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection

from tests import rabbitmq, servers
from tests.supervision import embedded, processes


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[processes.Supervisor, rabbitmq.Node]]:
    with processes.Supervisor() as supervisor:
        try:
            yield supervisor, rabbitmq.start_node(supervisor, tmp_path)
        except embedded.MissingServer as error:
            servers.give_up(str(error))


def test_a_durable_message_outlives_a_kill_of_the_node(
    node: tuple[processes.Supervisor, rabbitmq.Node],
) -> None:
    supervisor, private = node
    confirmed = Connection(private.url, transport_options={"confirm_publish": True})
    with confirmed as connection, connection.SimpleQueue("kept") as queue:
        queue.put("hello")
    _, server = supervisor.processes
    server.kill_session()
    assert not processes.port_answers("127.0.0.1", private.port)

    private.start(supervisor)
    with Connection(private.url) as connection, connection.SimpleQueue("kept") as queue:
        message = queue.get(timeout=10)
        assert message.payload == "hello"
        message.ack()
