"""Processes that end, fork or shut down right after a commit, with messages still to publish."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connections
from kombu import Connection

from jaiminho_celery import sweep
from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.models import Event
from parviraptor_celery import broker
from parviraptor_celery.drains import Budget
from tests.integration.background.common import ON_SERVERS, numbers, statuses
from tests.integration.black_hole import in_front_of
from tests.integration.test_celery_messages import make_app
from tests.integration.test_outbox import expire
from tests.supervision import processes

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0

START = """
import os, sys, threading, time
import django
from django.conf import settings
using, name, url, queue = sys.argv[1:5]
settings.DATABASES[using]["NAME"] = name
settings.PARVIRAPTOR_CONFIG = {"BROKER_TIMEOUT_SECONDS": 20}
"""

SET_UP = (
    START
    + """
django.setup()
from django.db import connections, transaction
from jaiminho_celery import hooks, wire
from jaiminho_celery.app import OutboxCelery

app = OutboxCelery("wire", broker=url, set_as_current=True)
app.conf.update(task_default_queue=queue, task_ignore_result=True)
app.outbox_using = using

def send(number):
    with transaction.atomic(using=using):
        app.send_task("wire.add", (number, 0))

"""
)

FORK = """
gate, real = threading.Event(), wire.send

def wait_and_send(app, messages):
    assert gate.wait(20)
    return real(app, messages)

def child():
    wire.send = real
    if not hooks.flush(2):
        return 1  # it waits for a thread that it doesn't have
    send(3)
    return 0 if hooks.flush(10) else 2

wire.send = wait_and_send
send(1)
send(2)
connections.close_all()  # whoever forks does that
if (pid := os.fork()) == 0:
    os._exit(child())
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
gate.set()
assert hooks.flush(10)
sys.exit(status)
"""

WORKER = """
from celery.signals import worker_process_shutdown

shutting_down = threading.Event()

@worker_process_shutdown.connect(weak=False)
def open_gate(**_):  # before the outbox's own receiver, which waits for what is held here
    shutting_down.set()

django.setup()
from jaiminho_celery import wire
from jaiminho_celery.app import OutboxCelery

app = OutboxCelery("wire", broker=url, set_as_current=True)
app.outbox_using = using
app.conf.update(task_default_queue=queue, task_ignore_result=True)
app.autodiscover_tasks()
send = wire.send

def hold(app, messages):
    shutting_down.wait(20)
    time.sleep(1.5)  # a slow broker: billiard by itself leaves a child one second
    return send(app, messages)

wire.send = hold

@app.task(name="wire.parent", shared=False)
def parent():
    app.send_task("wire.add", (7, 0), queue=queue + "-out")

app.worker_main([
    "worker", "--pool=prefork", "--concurrency=1", "--loglevel=INFO",
    "--without-mingle", "--without-gossip", "--without-heartbeat",
])
"""


@pytest.fixture(autouse=True)
def _fresh_broker() -> Iterator[None]:
    broker.close_breaker()
    yield
    broker.close_breaker()


@pytest.fixture
def queues(broker_url: str, queue_name: str) -> Iterator[str]:
    """A name for queues, which are deleted in the end."""
    yield queue_name
    with Connection(broker_url) as connection, connection.channel() as channel:
        for name in (queue_name, f"{queue_name}-out"):
            channel.queue_delete(name)


def script(using: str, source: str, url: str, queue: str) -> list[str]:
    """Return the command of a Python process that works on the test database."""
    name = connections[using].settings_dict["NAME"]
    return [sys.executable, "-c", source, using, str(name), url, queue]


def run(command: list[str]) -> None:
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@ON_SERVERS
@pytest.mark.parametrize("ending", ["", "sys.exit(0)"], ids=["end of script", "sys.exit"])
def test_a_process_that_ends_after_its_commit_publishes_first(
    using: str, broker_url: str, queue_name: str, ending: str
) -> None:
    run(
        script(
            using,
            f"{SET_UP}for number in range(20): send(number)\n{ending}",
            broker_url,
            queue_name,
        )
    )

    assert statuses(using) == []
    assert numbers(broker_url, queue_name) == list(range(20))


@ON_SERVERS
def test_what_a_process_that_dies_after_its_commit_left_the_relay_takes(
    using: str, broker_url: str, queue_name: str
) -> None:
    with in_front_of(broker_url) as hole:
        hole.swallow()
        run(script(using, f"{SET_UP}send(1)\nos._exit(0)", hole.url, queue_name))
    make_app(OutboxCelery, broker_url, queue_name)
    assert statuses(using) == [Event.Status.PUBLISHING]
    assert sweep.relay_here(using, Budget.endless()) == 0, "its lease still holds"

    expire(using)
    sweep.relay_here(using, Budget.endless())

    assert statuses(using) == [Event.Status.SENT]
    assert numbers(broker_url, queue_name) == [1]


@ON_SERVERS
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_publishes_its_own_messages_and_none_of_its_parents(
    using: str, broker_url: str, queue_name: str
) -> None:
    run(script(using, SET_UP + FORK, broker_url, queue_name))

    assert statuses(using) == []
    assert numbers(broker_url, queue_name) == [1, 2, 3]


@pytest.mark.parametrize("using", ["postgresql"], indirect=True)
def test_a_child_of_a_worker_publishes_what_its_last_task_sent_before_it_ends(
    using: str, broker_url: str, queues: str, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    caller = OutboxCelery("caller", broker=broker_url, set_as_current=False)
    with processes.Supervisor() as supervisor:
        worker = supervisor.start(
            "worker",
            script(using, START + WORKER, broker_url, queues),
            cwd=ROOT,
            log=log,
            ready=lambda: "ready." in log.read_text(),
            ready_timeout=SECONDS,
        )
        with caller.connection_for_write() as connection:
            caller.send_task("wire.parent", queue=queues, connection=connection)
        processes.wait_until(lambda: "succeeded in" in log.read_text(), 30, "the task to run")
        assert statuses(using) == [Event.Status.PUBLISHING]

        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0, log.read_text()

    assert statuses(using) == [], log.read_text()
    assert numbers(broker_url, f"{queues}-out") == [7]
