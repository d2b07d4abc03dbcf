"""The yardstick: a bare kombu producer that publishes ready Celery messages one by one."""

from __future__ import annotations

import os
from typing import Any
from uuid import uuid4

from celery import Celery
from kombu import Connection, Queue

from benchmarks.drivers import environment
from benchmarks.drivers.protocol import Driver


class KombuProducer(Driver):
    packages = ("celery", "kombu", "redis", "amqp")

    def publish(self, messages: int, confirmed: bool) -> dict[str, Any]:
        """Publish that many; with `confirmed` RabbitMQ has to confirm each before the next."""
        app = Celery("benchmarks", set_as_current=False)
        ready = [_message(app, number) for number in range(messages)]
        options = {"confirm_publish": True} if confirmed else {}
        queue = os.environ[environment.QUEUE_VARIABLE]
        with Connection(environment.broker(), transport_options=options) as connection:
            producer = connection.Producer(serializer="json")
            Queue(queue)(producer.channel).declare()
            for body, headers, properties in ready:
                producer.publish(
                    body, exchange="", routing_key=queue, headers=headers, **properties
                )
        return {"messages": messages}


def _message(app: Celery, number: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return body, headers and properties as Celery itself makes them (protocol 2)."""
    made = app.amqp.as_task_v2(
        str(uuid4()), environment.TASK, (number,), {}, ignore_result=True, create_sent_event=False
    )
    return made.body, made.headers, made.properties


if __name__ == "__main__":
    KombuProducer().main()
