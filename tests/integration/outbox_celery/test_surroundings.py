"""Databases, bad input, threads and apps."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from celery import Celery, group
from django.db import connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from kombu.exceptions import EncodeError

from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.exceptions import PayloadTooLarge, UnknownAlias
from jaiminho_celery.models import Event
from tests.integration.outbox_celery.common import NOWHERE, nothing, tasks_of
from tests.integration.wire import Broker

pytestmark = [pytest.mark.django_db(transaction=True)]


class TestDatabases:
    def test_a_send_costs_one_insert(self, using: str, queue_name: str) -> None:
        app = OutboxCelery("count", broker=NOWHERE, backend=NOWHERE, set_as_current=False)
        app.conf.task_send_sent_event = True
        with pytest.raises(ZeroDivisionError), transaction.atomic(using=using):
            with CaptureQueriesContext(connections[using]) as queries:
                app.send_task("count.it", outbox_using=using)
            assert [query["sql"][:11] for query in queries] == ["INSERT INTO"]
            assert Event.rows(using).count() == 1
            raise ZeroDivisionError

    def test_the_app_names_the_database_for_canvas_too(self, using: str) -> None:
        class Elsewhere(OutboxCelery):
            outbox_using = using

        app = Elsewhere("elsewhere", broker=NOWHERE, set_as_current=False)
        task = app.task(name="elsewhere.task", shared=False)(nothing)
        with pytest.raises(ZeroDivisionError), transaction.atomic(using=using):
            group([task.s(), task.s()], app=app).apply_async()
            assert Event.rows(using).count() == 2
            raise ZeroDivisionError

    def test_an_unknown_database_is_refused_before_anything_is_written(self) -> None:
        app = OutboxCelery("unknown", broker=NOWHERE, set_as_current=False)
        with pytest.raises(UnknownAlias, match="'nirvana'"):
            app.send_task("unknown.task", outbox_using="nirvana")
        assert not Event.objects.exists()


class TestBadInput:
    @pytest.mark.parametrize("kind", [Celery, OutboxCelery])
    def test_an_argument_that_cant_be_encoded_raises_what_celery_raises(
        self, kind: type[Celery], redis_url: str
    ) -> None:
        app = kind("bad", broker=redis_url, set_as_current=False)
        with pytest.raises(EncodeError):
            app.send_task("bad.task", (object(),))
        assert not Event.objects.exists()

    @override_settings(JAIMINHO_CONFIG={"MAX_PAYLOAD_BYTES": 2000})
    def test_a_message_that_is_too_large_raises_at_the_call(self) -> None:
        app = OutboxCelery("large", broker=NOWHERE, set_as_current=False)
        with pytest.raises(PayloadTooLarge):
            app.send_task("large.task", ("x" * 2000,), argsrepr="")
        assert not Event.objects.exists()


class TestThreadsAndApps:
    def test_each_app_sends_to_its_own_broker(
        self, redis_url: str, rabbitmq_url: str, queue_name: str
    ) -> None:
        places = [Broker(redis_url, queue_name), Broker(rabbitmq_url, queue_name)]
        apps = []
        for name, at in zip(("first", "second"), places, strict=True):
            app = OutboxCelery(name, broker=at.url)
            app.conf.task_default_queue = queue_name
            apps.append(app)
        with transaction.atomic():
            for app in apps:
                app.send_task(f"task.of.{app.main}")
        assert [tasks_of(at) for at in places] == [{"task.of.first"}, {"task.of.second"}]
        for at in places:
            at.close()

    def test_a_task_sent_by_an_on_commit_hook_is_sent(self, app: Any, at: Broker) -> None:
        with transaction.atomic():
            transaction.on_commit(lambda: app.tasks["wire.add"].delay())
            app.tasks["wire.drop"].delay()
        assert tasks_of(at) == {"wire.add", "wire.drop"}

    def test_many_threads_send_each_its_own(self, app: Any, at: Broker) -> None:
        results: list[Any] = []

        def send() -> None:
            results.extend(app.send_task("wire.add") for _ in range(5))
            connections.close_all()

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        sent = [message for messages in at.take().values() for message in messages]
        assert len(results) == len(sent) == 20
        assert {type(result.backend) for result in results} == {type(app.backend)}
