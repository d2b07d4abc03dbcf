"""Results, what bypasses the outbox, and what is sent besides."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from celery import group, signals
from celery.beat import ScheduleEntry, Scheduler
from celery.contrib.testing.worker import start_worker
from celery.result import AsyncResult
from celery.schedules import schedule
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler
from kombu import Exchange, Queue

from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.models import Event
from parviraptor_celery import broker as library_broker
from tests.integration.outbox_celery.common import NOWHERE, nothing, tasks_of
from tests.integration.wire import Broker, acting, application, assert_equal_on_the_wire, pair
from tests.unit.events import let_be_due, relay

pytestmark = [pytest.mark.django_db(transaction=True)]


@contextmanager
def rolled_back() -> Iterator[None]:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        yield
        raise ZeroDivisionError


class TestResults:
    @pytest.mark.parametrize("backend", [NOWHERE, "rpc://"])
    def test_neither_broker_nor_result_backend_is_asked_at_the_call(
        self, queue_name: str, backend: str
    ) -> None:
        app = OutboxCelery("away", broker=NOWHERE, backend=backend, set_as_current=False)
        with rolled_back():
            result = app.send_task("away.task")
            assert Event.objects.count() == 1
        assert isinstance(result, AsyncResult)
        assert result.backend is app.backend

    def test_the_result_of_a_nested_send_has_the_real_backend(self, app: Any) -> None:
        nested = []

        @signals.before_task_publish.connect(weak=True)
        def send_another(sender: str, **_: Any) -> None:
            if sender == "wire.add":
                nested.append(app.tasks["wire.drop"].delay())
                nested.append(app.tasks["wire.other"].delay())

        app.task(name="wire.other", shared=False)(nothing)
        with rolled_back():
            outer = app.tasks["wire.add"].delay()
            assert Event.objects.count() == 3
        assert all(result.backend is app.backend for result in (outer, *nested))

    @pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by Celery's Redis backend
    @pytest.mark.parametrize("kind", ["redis", "rpc"])
    def test_get_returns_what_the_worker_returned(
        self, at: Broker, redis_url: str, kind: str
    ) -> None:
        app = _working(at, backend="rpc://" if kind == "rpc" else redis_url)
        with start_worker(app, loglevel="WARNING", perform_ping_check=False, shutdown_timeout=20):
            with transaction.atomic():
                result = app.tasks["work.add"].delay(1, 2)
            assert result.get(timeout=10) == 3
        app.backend.result_consumer.stop()

    def test_the_reply_queue_is_there_when_the_task_runs_before_anybody_asks(
        self, rabbitmq_url: str, queue_name: str
    ) -> None:
        at = Broker(rabbitmq_url, queue_name)
        app = _working(at, backend="rpc://")
        result = app.tasks["work.add"].delay(1, 2)
        with (
            start_worker(app, loglevel="WARNING", perform_ping_check=False, shutdown_timeout=20),
            app.connection_for_read() as connection,
        ):
            replies = app.backend.binding(connection.default_channel)
            _until(lambda: replies.queue_declare(passive=True).message_count == 1)
        assert result.get(timeout=10) == 3
        app.backend.result_consumer.stop()
        at.close()


class TestBypasses:
    def test_an_excluded_task_goes_out_at_once(self, app: Any, at: Broker) -> None:
        app.outbox_exclude = ("wire.d*",)
        with rolled_back():
            app.tasks["wire.drop"].delay()
            app.tasks["wire.add"].delay()
            assert Event.objects.count() == 1
        _until(lambda: len(tasks_of(at)) == 1)

    def test_tasks_of_a_group_sent_while_another_goes_out_directly_use_the_outbox(
        self, app: Any, at: Broker
    ) -> None:
        app.outbox_exclude = ("wire.drop",)
        add = app.tasks["wire.add"]

        @signals.before_task_publish.connect(weak=True)
        def send_a_group(sender: str, **_: Any) -> None:
            if sender == "wire.drop":
                group([add.s(), add.s()], app=app).apply_async()

        with rolled_back():
            app.tasks["wire.drop"].delay()
            assert Event.objects.count() == 2

    @pytest.mark.parametrize("given", ["producer", "publisher", "connection"])
    def test_what_the_caller_brings_is_used_at_once(self, app: Any, at: Broker, given: str) -> None:
        with rolled_back(), app.connection_for_write() as connection:
            own = connection if given == "connection" else app.amqp.Producer(connection)
            app.send_task("wire.add", **{given: own})
            assert not Event.objects.exists()
        _until(lambda: len(tasks_of(at)) == 1)

    def test_a_producer_may_be_given_by_position(self, app: Any, at: Broker) -> None:
        with rolled_back(), app.connection_for_write() as connection:
            producer = app.amqp.Producer(connection)
            app.send_task("wire.add", (1,), {}, None, None, None, producer)
            assert not Event.objects.exists()
        _until(lambda: len(tasks_of(at)) == 1)

    def test_beat_sends_directly(self, app: Any, at: Broker) -> None:
        scheduler = Scheduler(app=app)
        entry = ScheduleEntry("due", "wire.add", schedule=schedule(timedelta(0)), app=app)
        scheduler.schedule = {"due": entry}
        with rolled_back():
            scheduler.tick()
            assert not Event.objects.exists()
        scheduler.connection.release()
        _until(lambda: len(tasks_of(at)) == 1)

    def test_beat_with_its_schedule_in_the_database_sends_directly(
        self, app: Any, at: Broker
    ) -> None:
        every = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.SECONDS)
        for task in ("wire.add", "wire.unknown"):
            PeriodicTask.objects.create(
                name=task, task=task, interval=every, queue=at.name, one_off=True
            )
        scheduler = DatabaseScheduler(app=app)
        sent: set[str] = set()

        def tick() -> bool:
            scheduler.tick()
            sent.update(tasks_of(at))
            return sent >= {"wire.add", "wire.unknown"}

        with CaptureQueriesContext(connections["default"]) as queries:
            _until(tick)
        scheduler.close()
        scheduler.connection.release()
        assert not [query for query in queries if Event._meta.db_table in query["sql"]]

    def test_remote_control_and_events_send_directly(self, app: Any) -> None:
        with rolled_back():
            app.control.broadcast("clock")
            with app.events.default_dispatcher() as dispatcher:
                dispatcher.send("own-event")
            assert not Event.objects.exists()

    def test_an_eager_task_runs_at_once_and_writes_nothing(self) -> None:
        app = OutboxCelery("eager", broker=NOWHERE, set_as_current=False)
        app.conf.task_always_eager = True
        ran = []

        @app.task(name="eager.task", shared=False)
        def task(value: int) -> None:
            ran.append(value)

        with rolled_back():
            task.apply_async((1,), outbox_using="default")
            assert ran == [1]
            assert not Event.objects.exists()


class TestWhatIsSentBesides:
    def test_the_event_task_sent_is_sent_as_celery_does(self, at: Broker) -> None:
        exchange = f"{at.name}-events"
        if not at.is_redis:
            at.queues.append(Queue(exchange, Exchange(exchange, "topic"), routing_key="#"))
            at.queues[-1](at.connection.default_channel).declare()
        heard = []
        for app in pair(at, task_send_sent_event=True, event_exchange=exchange):
            with acting(app):
                app.tasks["wire.add"].delay(1)
            heard.append(_event(_until(lambda: at.take()), at))
        assert heard[0] == heard[1]
        assert heard[0]["type"] == "task-sent"

    def test_headers_changed_by_a_receiver_are_sent(self, app: Any, at: Broker) -> None:
        @signals.before_task_publish.connect(weak=True)
        def add_header(headers: dict[str, Any], **_: Any) -> None:
            headers["tenant"] = "blue"

        app.tasks["wire.add"].delay()
        ((message,),) = at.take().values()
        assert message["headers"]["tenant"] == "blue"

    def test_after_task_publish_fires_at_the_call(self, app: Any) -> None:
        heard = []

        @signals.after_task_publish.connect(weak=True)
        def hear(sender: str, **_: Any) -> None:
            heard.append(sender)

        with rolled_back():
            app.tasks["wire.add"].delay()
            assert heard == ["wire.add"]

    def test_a_queue_that_only_the_caller_knows_is_declared_as_it_is(self, at: Broker) -> None:
        name = f"{at.name}-own"
        sent = []
        for app in pair(at):
            own = Queue(name, Exchange(f"{at.name}-x", "topic"), routing_key="a.*", expires=60)
            with acting(app):
                app.tasks["wire.add"].apply_async(queue=own, routing_key="a.b")
            if not at.is_redis:
                at.queues.append(own)
            sent.append(_until(lambda: at.take()))
            own(at.connection.default_channel).delete()
            own.exchange(at.connection.default_channel).delete()
            at.queues = [queue for queue in at.queues if queue.name != name]
        assert_equal_on_the_wire(*sent)

    def test_a_retry_in_a_worker_survives_a_broker_that_is_away(
        self, at: Broker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app = application(OutboxCelery, at)
        add = app.tasks["wire.add"]
        with acting(app, {"id": "a", "root_id": "a", "args": [1], "kwargs": {}}):
            with monkeypatch.context() as patch:
                patch.setattr(library_broker, "use", _away)
                add.retry(countdown=1, throw=False)
            assert Event.objects.get().status == Event.Status.WAITING
            let_be_due()
            relay()
        assert tasks_of(at) == {"wire.add"}


def _add(x: int, y: int) -> int:
    return x + y


def _working(at: Broker, *, backend: str) -> Any:
    app = OutboxCelery("work", broker=at.url, backend=backend)
    app.conf.update(
        task_default_queue=at.name,
        worker_hijack_root_logger=False,
        broker_heartbeat=1,  # makes the worker's loop look soon whether it has to stop
    )
    app.task(name="work.add", shared=False)(_add)
    app.set_default()
    app.finalize()
    return app


def _event(taken: dict[str, list[Any]], at: Broker) -> Any:
    """Return the event among what was taken, without its time and clock."""
    if at.is_redis:
        ((_, message),) = taken["published"]
        event = json.loads(base64.b64decode(message["body"]))
    else:
        (message,) = taken[f"{at.name}-events"]
        event = json.loads(message["body"])
    return {key: value for key, value in event.items() if key not in ("timestamp", "clock")}


def _until(check: Callable[[], Any], seconds: float = 10) -> Any:
    """Wait until ``check`` returns something, and return it."""
    waiting = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if found := check():
            return found
        waiting.wait(0.02)
    raise AssertionError("it did not happen")


def _away(*_: Any, **__: Any) -> Any:
    raise library_broker.BrokerAway("as the test wants it")
