"""Frozen Celery messages, read and run in this process as a worker would: for tests."""

from __future__ import annotations

from typing import Any

from celery import states
from celery.app.trace import build_tracer
from celery.result import denied_join_result
from celery.worker.request import Request
from celery.worker.strategy import proto1_to_proto2  # type: ignore[attr-defined]
from kombu.message import Message
from kombu.serialization import prepare_accept_content

from parviraptor_celery import broker

from .exceptions import UnknownFunction


def read(frozen: dict[str, Any]) -> tuple[str, list[Any], dict[str, Any], dict[str, Any]]:
    """Return the task's name, args, kwargs and headers, decoded like a worker decodes them."""
    payload, headers = _decode(_message(frozen))
    return headers["task"], list(payload[0]), dict(payload[1]), headers


def run(frozen: dict[str, Any]) -> None:
    """Run the task that a message asks for; what it sends goes where ``delay()`` sends it.

    Retries, links and the rest of a chain are sent as messages, like a worker does. Results are
    stored only under ``task_store_eager_result``.

    Raises:
        UnknownFunction: this process's application has no such task.
        Exception: what the task raised, unless it asked for a retry, or to be ignored.
    """
    app, message = broker.this_app(), _message(frozen)
    payload, headers = _decode(message)
    task = app.tasks.get(headers["task"])
    if task is None:
        raise UnknownFunction(f"this process's Celery application has no task {headers['task']!r}")
    request: Any = Request(
        message, app=app, task=task, body=payload, headers=headers, decoded=True
    ).request_dict
    args, kwargs, embed = payload
    request.update({"is_eager": False, **(embed or {})})
    # Eager for the tracer alone: no result is stored, and no connection closed.
    trace = build_tracer(task.name, task, app=app, eager=True, propagate=False)
    with denied_join_result():
        info = trace(request["id"], args, kwargs, request).info
    if info is not None and info.state == states.FAILURE:
        raise info.retval


def _message(frozen: dict[str, Any]) -> Message:
    properties = frozen["properties"] | {"priority": frozen["priority"]}
    return Message(
        body=frozen["body"],
        content_type=frozen["content_type"],
        content_encoding=frozen["content_encoding"],
        headers=dict(frozen["headers"]),
        properties=properties,
        delivery_info={"exchange": frozen["exchange"], "routing_key": frozen["routing_key"]},
        accept=prepare_accept_content(broker.this_app().conf.accept_content),
    )


def _decode(message: Message) -> tuple[Any, dict[str, Any]]:
    payload: Any = message.payload
    if "task" in message.headers:
        return payload, message.headers
    payload, headers, *_ = proto1_to_proto2(message, payload)
    return payload, headers
