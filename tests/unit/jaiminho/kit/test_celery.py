"""Tasks that were sent through the outbox, in tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, chain, chord
from django.core.management import call_command

from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.exceptions import DrainFailed
from jaiminho_celery.models import Event
from jaiminho_celery.test import Outbox
from tests.testapp import outbox as functions
from tests.unit.conftest import messages, using_celery
from tests.unit.jaiminho.kit.common import names

pytestmark = pytest.mark.django_db


class TestCelery:
    @pytest.fixture
    def app(self) -> Iterator[Celery]:
        app = OutboxCelery("kit", broker="memory://", set_as_current=False)
        app.conf.update(task_ignore_result=True)

        @app.task(name="kit.add", shared=False)
        def add(*numbers: Any, **_: Any) -> int:
            functions.calls.append(("add", numbers, {}))
            return len(numbers)

        @app.task(name="kit.fail", shared=False, bind=True, max_retries=2)
        def fail(self: Any, retried: bool = False) -> None:
            functions.calls.append(("fail", (self.request.retries, self.request.is_eager), {}))
            error = ZeroDivisionError("by zero")
            raise self.retry(exc=error, countdown=60) if retried else error

        with using_celery(app):
            yield app
            assert messages(app) == []  # nothing of all this goes to the broker

    def test_a_message_is_seen_as_the_call_of_its_task(self, outbox: Outbox, app: Any) -> None:
        result = app.tasks["kit.add"].apply_async((1, (2,)), {"at": 3}, headers={"tenant": "a"})
        (sent,) = outbox.assert_sent(app.tasks["kit.add"], 1, (2,), at=3)
        assert outbox.assert_sent("kit.add", 1, [2], at=3) == [sent]
        outbox.assert_not_sent("kit.add", 1)
        assert (sent.task_id, sent.stream, sent.args) == (result.id, "celery", (1, [2]))
        assert (sent.headers["tenant"], sent.routing_key) == ("a", "celery")

    def test_tasks_run_like_in_a_worker(self, outbox: Outbox, app: Any) -> None:
        functions.bare(0)
        app.tasks["kit.add"].apply_async((1, 2), compression="gzip", countdown=60)
        app.send_task("kit.add", (3, 4))
        assert names() == []
        assert [sent.name for sent in outbox.drain()] == [
            "tests.testapp.outbox:bare",
            "kit.add",
            "kit.add",
        ]
        assert [args for _, args, _ in functions.calls] == [(0,), (1, 2), (3, 4)]

    def test_a_chain_a_link_and_a_group_go_on(self, outbox: Outbox, app: Any) -> None:
        add = app.tasks["kit.add"]
        chain(add.s(1, 2), add.s(10))()
        add.apply_async((5,), link=add.s(6))
        outbox.drain()
        assert [args for _, args, _ in functions.calls] == [(1, 2), (5,), (2, 10), (1, 6)]
        assert len(outbox.published) == 4

    def test_a_relay_of_the_test_runs_no_tasks(self, outbox: Outbox, app: Any) -> None:
        app.tasks["kit.add"].delay(1)
        Event.objects.update(status="WAITING", lease_until=None)
        call_command("events_relay")
        assert [sent.name for sent in outbox.published] == ["kit.add"]
        app.tasks["kit.add"].delay(2)
        outbox.drain()
        assert [args for _, args, _ in functions.calls] == [(2,)]

    def test_the_body_of_a_chord_runs_if_results_are_stored(self, outbox: Outbox, app: Any) -> None:
        app.conf.update(
            task_ignore_result=False,
            result_backend="cache+memory://",
            task_store_eager_result=True,
        )
        add = app.tasks["kit.add"]
        chord([add.s(1), add.s(2)], add.s())()
        outbox.drain()
        assert [args for _, args, _ in functions.calls] == [(1,), (2,), ([1, 1],)]

    def test_tasks_are_not_run_if_told(self, outbox: Outbox, app: Any) -> None:
        app.tasks["kit.add"].delay(1, 2)
        assert [sent.args for sent in outbox.drain(run_tasks=False)] == [(1, 2)]
        assert names() == []
        assert outbox.events == []

    def test_a_task_that_fails_fails_the_drain(self, outbox: Outbox, app: Any) -> None:
        app.tasks["kit.fail"].delay()
        with pytest.raises(DrainFailed, match=r"kit\.fail .*ZeroDivisionError: by zero") as raised:
            outbox.drain()
        assert isinstance(raised.value.__cause__, ZeroDivisionError)

    def test_a_task_that_fails_is_shown_if_told(self, outbox: Outbox, app: Any) -> None:
        app.tasks["kit.fail"].delay()
        app.tasks["kit.add"].delay(1)
        outbox.drain(raise_errors=False)
        ((name, error),) = [(sent.name, sent.error) for sent in outbox.failed]
        assert (name, error) == ("kit.fail", "ZeroDivisionError: by zero")
        assert names() == ["fail", "add"]

    def test_a_retry_is_a_message_of_its_own(self, outbox: Outbox, app: Any) -> None:
        app.tasks["kit.fail"].delay(retried=True)
        with pytest.raises(DrainFailed, match="ZeroDivisionError"):
            outbox.drain()
        assert [args for _, args, _ in functions.calls] == [(0, False), (1, False), (2, False)]

    def test_a_task_that_nobody_here_knows_is_complained_of(self, outbox: Outbox, app: Any) -> None:
        app.send_task("elsewhere.pack", (1,))
        outbox.assert_sent("elsewhere.pack", 1)
        with pytest.raises(DrainFailed, match=r"no task 'elsewhere\.pack'"):
            outbox.drain()
