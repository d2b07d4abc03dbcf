"""What the outbox promises where databases, brokers and processes are real.

Continues unit/jaiminho/test_contract.py: public names only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from celery import Celery, chain, group
from celery.contrib.testing.worker import start_worker
from celery.result import AsyncResult
from django.core.management import call_command
from django.db import connections, transaction
from django.test import override_settings
from django.utils import timezone

from jaiminho_celery import hooks, registry
from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from parviraptor_celery import broker as library_broker
from tests import servers
from tests.integration.test_celery_messages import drain_queue, make_app
from tests.integration.threads import open_transaction
from tests.integration.wire import Broker, acting, assert_equal_on_the_wire, pair
from tests.supervision import processes

CONCURRENT = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)
TICK_SECONDS = 0.05

done: list[Any] = []


class Crash(BaseException):
    """The process dies here."""


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    done.clear()
    known = dict(registry._functions)
    library_broker.close_breaker()
    yield
    hooks.flush()
    registry._functions.clear()
    registry._functions.update(known)
    library_broker.close_breaker()


@pytest.fixture
def quiet(queue_name: str) -> Any:
    """An app whose broker is in memory: nobody hears the nudges."""
    return make_app(Celery, "memory://", queue_name)


def relay(using: str) -> None:
    noted = mock.patch("jaiminho_celery.sweep.note_command")  # which is in another database
    with override_settings(JAIMINHO_CONFIG={"DATABASES": [using]}), noted:
        call_command("events_relay", stdout=StringIO())


def let_leases_run_out(using: str) -> None:
    past = timezone.now() - timedelta(minutes=1)
    Event.objects.using(using).exclude(lease_until=None).update(lease_until=past)


def let_be_due(using: str) -> None:
    past = timezone.now() - timedelta(minutes=1)
    Event.objects.using(using).filter(sent_at=None).update(run_after=past)


@pytest.mark.usefixtures("quiet")
def test_behaviour_1_nothing_committed_is_lost_and_nothing_rolled_back_is_sent(using: str) -> None:
    @save_to_outbox(using=using, name="contract.one")
    def one(payload: Any) -> None:
        done.append(payload)

    @save_to_outbox_stream("contract", "keep-order", using, name="contract.two")
    def two(payload: Any) -> None:
        done.append(payload)

    with pytest.raises(ZeroDivisionError), transaction.atomic(using=using):
        one("never")
        two("never")
        raise ZeroDivisionError
    with transaction.atomic(using=using):
        one(1)
        with pytest.raises(ZeroDivisionError), transaction.atomic(using=using):
            one("never")
            raise ZeroDivisionError
        two(2)
        assert Event.objects.using(using).count() == 2
    assert done == [1]
    relay(using)
    assert done == [1, 2]
    assert Event.objects.using(using).get().sent_at


@pytest.mark.usefixtures("quiet")
def test_behaviour_1_a_row_is_leased_to_its_hook_and_then_the_relay_takes_it(using: str) -> None:
    @save_to_outbox(using=using, name="contract.dying")
    def publish(payload: Any) -> None:
        done.append(payload)

    def die() -> None:
        raise Crash

    with pytest.raises(Crash), transaction.atomic(using=using):
        transaction.on_commit(die, using=using)  # after the commit, before the event's hook
        publish("survives")
    relay(using)
    assert done == [], "the lease of the hook holds"
    let_leases_run_out(using)
    relay(using)
    assert done == ["survives"]
    assert Event.objects.using(using).get().sent_at


@pytest.mark.usefixtures("quiet")
@pytest.mark.django_db(transaction=True, databases=["default", "postgresql"])
def test_behaviour_1_a_warning_says_when_only_another_alias_is_in_a_transaction(
    caplog: pytest.LogCaptureFixture,
) -> None:
    servers.require("postgresql")
    function = save_to_outbox(name="contract.elsewhere")(done.append)
    with transaction.atomic(using="postgresql"):
        function(1)
    assert "is in no transaction, while 'postgresql' is" in caplog.text
    caplog.clear()
    with transaction.atomic(using="postgresql"), transaction.atomic():
        function(2)
    assert caplog.text == ""


@CONCURRENT
@pytest.mark.usefixtures("quiet")
def test_behaviour_3_a_commit_that_arrives_late_with_a_lower_id_is_not_overtaken(
    using: str,
) -> None:
    options: Any = {"using": using, "key": lambda key, _: key, "name": "contract.keyed"}

    @save_to_outbox_stream("contract", "keep-order", **options)
    def publish(key: str, number: int) -> None:
        done.append((key, number))

    with open_transaction(using, lambda: publish("a", 1)) as late:
        publish("a", 2)
        publish("b", 3)
        relay(using)
        assert done == [("b", 3)], "another key is not held"
        late.committed()
    relay(using)
    assert done == [("b", 3), ("a", 1), ("a", 2)]


# Processes


SETTINGS = """
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = ["jaiminho_celery", "shop"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "DIRECTORY/db.sqlite3",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }
}
CELERY_DB_REUSE_MAX = 1000
JAIMINHO_CONFIG = {"LEASE_SECONDS": 1}
"""

SHOP = {
    "__init__.py": "",
    "outbox.py": """
from jaiminho_celery.send import save_to_outbox

@save_to_outbox(name="leads to no module")
def discovered(payload):
    print("discovered", payload, flush=True)
""",
    "orders.py": """
from jaiminho_celery.send import save_to_outbox

@save_to_outbox
def named(payload):
    print("named", payload, flush=True)
""",
}

SET_UP = """
import os
import django
django.setup()
from celery import current_app
current_app.conf.broker_url = "memory://"
from django.core.management import call_command
from django.db import transaction
call_command("migrate", verbosity=0)
import shop.orders, shop.outbox
"""

DIES_AFTER_THE_COMMIT = """
with transaction.atomic():
    transaction.on_commit(lambda: os.kill(os.getpid(), 9))
    shop.outbox.discovered(1)
    shop.orders.named(2)
"""

DIES_BEFORE_THE_COMMIT = """
with transaction.atomic():
    shop.outbox.discovered("never")
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    for name, source in SHOP.items():
        (tmp_path / "shop" / name).write_text(source)
    (tmp_path / "own_settings.py").write_text(SETTINGS.replace("DIRECTORY", str(tmp_path)))
    return tmp_path


def environment(project: Path) -> dict[str, str]:
    paths = [str(project), str(Path(__file__).resolve().parents[2])]
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "own_settings",
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def killed(project: Path, source: str) -> bool:
    """Run a process in the project; return whether it died by SIGKILL."""
    command = [sys.executable, "-c", SET_UP + source]
    ran = subprocess.run(command, check=False, env=environment(project), timeout=60)
    return ran.returncode == -signal.SIGKILL


@contextmanager
def relaying(project: Path, *options: str) -> Iterator[Callable[[], str]]:
    """Run `events_relay` as a process; yield what it has printed, and stop it by SIGTERM."""
    command = [sys.executable, "-m", "django", "events_relay", *options]
    log, errors = project / "relay.out", project / "relay.err"
    with log.open("w") as out, errors.open("w") as err:
        process = subprocess.Popen(command, env=environment(project), stdout=out, stderr=err)
    try:
        yield log.read_text
        process.terminate()
        assert process.wait(20) == 0, errors.read_text()
    finally:
        process.kill()
        process.wait(20)


def test_commands_and_behaviours_1_and_5_with_processes_that_are_killed(project: Path) -> None:
    """What a killed process committed is delivered by a loop that imports what it has to."""
    assert killed(project, DIES_BEFORE_THE_COMMIT)
    assert killed(project, DIES_AFTER_THE_COMMIT)
    with relaying(project, "--run-in-loop", "--loop-interval", str(TICK_SECONDS)) as printed:
        processes.wait_until(lambda: "named 2" in printed(), 30, "the relay's loop to deliver")
        assert killed(project, DIES_AFTER_THE_COMMIT)
        processes.wait_until(lambda: printed().count("named 2") == 2, 30, "it to go on")
    lines = printed().splitlines()
    assert Counter(lines) == {"discovered 1": 2, "named 2": 2, "4 events tried": 1}


# Celery messages


@pytest.mark.django_db(transaction=True)
@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by Celery's Redis backend
def test_outbox_celery(broker_url: str, redis_url: str, queue_name: str) -> None:
    app = working(broker_url, redis_url, queue_name)
    add = app.tasks["contract.add"]
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        add.delay(0, 0)
        raise ZeroDivisionError
    with transaction.atomic():
        results = [
            add.delay(1, 2),
            add.apply_async((3,), {"y": 4}),
            app.send_task("contract.add", (5, 6)),
            chain(add.s(7, 8), add.s(9))(),
        ]
        of_group = group(add.s(10, 11), add.s(12, 13))()
        assert all(isinstance(result, AsyncResult) for result in results)
        assert Event.objects.filter(sent_at=None).count() == 6
    assert hooks.flush()
    assert not Event.objects.exists()
    with start_worker(app, loglevel="WARNING", perform_ping_check=False, shutdown_timeout=20):
        assert [result.get(timeout=20) for result in results] == [3, 7, 11, 24]
        assert of_group.get(timeout=20) == [21, 25]
    app.backend.result_consumer.stop()
    drain_queue(broker_url, queue_name)


def working(broker_url: str, backend: str, queue_name: str) -> Any:
    """Return an app whose task a worker in this process can run."""
    app = OutboxCelery("contract", broker=broker_url, backend=backend)
    app.conf.update(
        task_default_queue=queue_name,
        worker_hijack_root_logger=False,
        broker_heartbeat=1,  # makes the worker's loop look soon whether it has to stop
    )

    @app.task(name="contract.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    app.set_default()
    app.finalize()
    return app


@pytest.fixture
def at(broker_url: str, queue_name: str) -> Iterator[Broker]:
    place = Broker(broker_url, queue_name)
    yield place
    place.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"countdown": 30, "expires": 60},
        {"serializer": "pickle", "compression": "gzip"},
        {"priority": 3, "headers": {"tenant": "blue"}, "queue": "named", "shadow": "shown"},
    ],
    ids=str,
)
def test_behaviour_7_outbox_celery_sends_exactly_the_message_of_celery(
    at: Broker, options: dict[str, Any]
) -> None:
    if options.get("queue"):
        options = {**options, "queue": f"{at.name}-named"}
    taken = []
    for app in pair(at):
        with acting(app):
            app.tasks["wire.add"].apply_async((1, "\x00\U0001f600"), {"y": [2]}, **options)
            hooks.flush()
        taken.append(at.take())
    native, ours = taken
    assert native, "there is something to compare"
    assert_equal_on_the_wire(native, ours)


@pytest.mark.django_db(transaction=True)
def test_behaviour_7_countdown_and_expires_count_from_the_call(
    broker_url: str, queue_name: str
) -> None:
    app = make_app(OutboxCelery, broker_url, queue_name)
    called_at = timezone.now()
    app.tasks["wire.add"].apply_async((1, 2), countdown=3600, expires=7200)  # kept by the outbox
    returned_at = timezone.now()
    let_be_due("default")
    relay("default")
    ((_, headers, _),) = drain_queue(broker_url, queue_name)
    for header, hours in (("eta", 1), ("expires", 2)):
        moment = datetime.fromisoformat(headers[header]) - timedelta(hours=hours)
        assert called_at <= moment <= returned_at


@pytest.mark.usefixtures("quiet")
def test_behaviour_7_a_crash_repeats_at_most_the_decorated_function_that_ran(using: str) -> None:
    crashes = ["second"]

    @save_to_outbox(using=using, name="contract.crashing")
    def publish(payload: str) -> None:
        done.append(payload)
        if payload in crashes:
            crashes.remove(payload)
            raise Crash

    def leave_to_the_relay() -> None:
        raise Crash

    with pytest.raises(Crash), transaction.atomic(using=using):
        transaction.on_commit(leave_to_the_relay, using=using)
        for payload in ("first", "second", "third"):
            publish(payload)
    let_leases_run_out(using)
    with pytest.raises(Crash):
        relay(using)
    let_leases_run_out(using)
    relay(using)
    let_be_due(using)  # who may have killed a process waits a little
    relay(using)
    assert Counter(done) == {"first": 1, "second": 2, "third": 1}


def test_behaviour_7_a_crash_repeats_at_most_one_unsettled_batch(
    using: str, broker_url: str, queue_name: str
) -> None:
    app = make_app(OutboxCelery, broker_url, queue_name)
    app.outbox_using = using
    for number in range(30):
        app.tasks["wire.add"].apply_async((number, 0), countdown=3600)  # kept by the outbox
    let_be_due(using)
    settled: list[str] = []

    def die_at_the_second_batch(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith("UPDATE") and "SENT" in str(rest[0]):
            settled.append(sql)
            if len(settled) == 2:
                raise Crash
        return execute(sql, *rest)

    with (
        connections[using].execute_wrapper(die_at_the_second_batch),
        pytest.raises(Crash),
    ):
        relay(using)
    recorded = set(Event.objects.using(using).exclude(sent_at=None).values_list("pk", flat=True))
    unsettled = Event.objects.using(using).exclude(lease_until=None).count()
    assert recorded
    assert unsettled
    for _ in range(3):
        let_leases_run_out(using)
        let_be_due(using)
        relay(using)
    sent = drain_queue(broker_url, queue_name)
    counts = Counter(json.loads(body)[0][0] for body, _, _ in sent)
    assert set(counts) == set(range(30))
    assert max(counts.values()) == 2
    assert sum(counts.values()) == 30 + unsettled
