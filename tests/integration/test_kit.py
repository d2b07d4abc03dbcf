"""The test kit on each database, in an enclosing transaction too, and in a project of its own."""

from __future__ import annotations

import configparser
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connections, transaction
from django.utils import timezone

from jaiminho_celery import barriers, draining, registry, sweep
from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.constants import PublishStrategyType
from jaiminho_celery.exceptions import DrainFailed
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from jaiminho_celery.test import Outbox
from parviraptor_celery.drains import Budget
from tests import servers
from tests.integration.threads import open_transaction
from tests.unit.conftest import using_celery

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "redis://127.0.0.1:1/0"

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _functions() -> Iterator[None]:
    """Start with nothing run; forget the functions of a test after it."""
    known = dict(registry._functions)
    ran.clear()
    yield
    registry._functions.clear()
    registry._functions.update(known)


@pytest.fixture(autouse=True)
def celery_app() -> Iterator[Any]:
    """A Celery whose broker is not there: whatever is sent to it raises."""
    app = OutboxCelery("kit", broker=NOWHERE, set_as_current=False)
    app.conf.task_ignore_result = True

    @app.task(name="kit.pack", shared=False)
    def pack(*args: Any) -> None:
        ran.append(("pack", *args))

    with using_celery(app):
        yield app


@pytest.fixture
def announce(using: str) -> Callable[..., None]:
    @save_to_outbox(using=using, name="kit.announce")
    def announce(*args: Any) -> None:
        ran.append(("announce", *args))
        if args == ("fail in the database",):
            with connections[using].cursor() as cursor:
                cursor.execute("SELECT nothing FROM nowhere")

    return announce


@pytest.fixture
def book(using: str) -> Callable[..., None]:
    @save_to_outbox_stream(
        "books", PublishStrategyType.KEEP_ORDER, using=using, key=lambda key, *_: key, name="kit.b"
    )
    def book(*args: Any) -> None:
        ran.append(("book", *args))
        if args[-1] == "fail":
            raise ValueError("fail")

    return book


@pytest.fixture(params=[False, True], ids=["committed", "in one transaction"])
def enclosed(request: pytest.FixtureRequest, using: str) -> Iterator[None]:
    """With real commits, as in a TransactionTestCase; then inside one, as in a TestCase."""
    with Undone(using) if request.param else nullcontext():
        yield


class Undone(AbstractContextManager["Undone"]):
    """What a TestCase puts around a test."""

    def __init__(self, using: str) -> None:
        self.using = using
        self.atomic = transaction.atomic(using=using)

    def __enter__(self) -> Undone:
        self.atomic.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        transaction.set_rollback(True, using=self.using)
        self.atomic.__exit__(None, None, None)


@pytest.mark.usefixtures("enclosed")
class TestOnEachDatabase:
    def test_everything_is_delivered_in_order_without_a_broker(
        self, using: str, outbox: Outbox, announce: Any, book: Any
    ) -> None:
        with transaction.atomic(using=using):
            announce((1, 2))
            book("x", 1)
            book("y", 2)
            book("x", 3)
        assert ran == []
        outbox.drain()
        assert ran == [("announce", [1, 2]), ("book", "x", 1), ("book", "y", 2), ("book", "x", 3)]
        assert outbox.events == []
        assert [sent.name for sent in outbox.sent] == ["kit.announce", *["kit.b"] * 3]

    def test_a_rolled_back_savepoint_takes_its_events_along(
        self, using: str, outbox: Outbox, announce: Any, book: Any
    ) -> None:
        with transaction.atomic(using=using):
            book("x", "before")
            with pytest.raises(ValueError, match="undo"), transaction.atomic(using=using):
                book("x", "inside")
                announce("inside")
                raise ValueError("undo")
            book("x", "after")
        assert [sent.args[1] for sent in outbox.events] == ["before", "after"]
        outbox.drain()
        assert ran == [("book", "x", "before"), ("book", "x", "after")]

    def test_a_failing_head_holds_its_lane_alone(
        self, using: str, outbox: Outbox, book: Any
    ) -> None:
        book("x", "fail")
        book("x", 2)
        book("y", 3)
        outbox.drain(raise_errors=False)
        assert ran == [("book", "x", "fail"), ("book", "y", 3)]
        assert [sent.args for sent in outbox.failed] == [("x", "fail")]
        assert [sent.args for sent in outbox.events] == [("x", "fail"), ("x", 2)]

    def test_a_statement_that_fails_costs_its_own_function_and_no_more(
        self, using: str, outbox: Outbox, announce: Any
    ) -> None:
        announce("fail in the database")
        announce(2)
        with pytest.raises(DrainFailed, match=r"kit\.announce") as raised:
            outbox.drain()
        assert isinstance(raised.value.__cause__, DatabaseError)
        outbox.drain(raise_errors=False)
        assert ran[-1] == ("announce", 2)
        assert [sent.args for sent in outbox.failed] == [("fail in the database",)]

    def test_a_relay_does_not_wait_for_its_own_transaction(
        self, using: str, outbox: Outbox, book: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(barriers, "PATIENCE_SECONDS", 0.05)
        book("x", 1)
        assert sweep.relay_here(using, Budget.endless()) == 1
        assert ran == [("book", "x", 1)]


@pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)
def test_an_open_transaction_of_another_thread_is_complained_of(
    using: str, outbox: Outbox, book: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(barriers, "PATIENCE_SECONDS", 0.05)
    with open_transaction(using, lambda: book("x", 1)):
        book("x", 2)
        visible = Event.rows(using).get()
        Event.rows(using).filter(pk=visible.pk).update(run_after=timezone.now())
        with pytest.raises(DrainFailed, match="another thread's open transaction"):
            outbox.drain()
    outbox.drain()
    assert ran == [("book", "x", 1), ("book", "x", 2)]


def test_what_threads_of_the_test_write_is_delivered(
    using: str, outbox: Outbox, announce: Any, book: Any
) -> None:
    def write() -> None:
        with transaction.atomic(using=using):
            book("x", 1)
            announce(2)
        connections.close_all()

    thread = threading.Thread(target=write)
    thread.start()
    thread.join(20)
    assert ran == []
    outbox.drain()
    assert ran == [("book", "x", 1), ("announce", 2)]


@pytest.mark.django_db(transaction=True, databases=["default", "postgresql"])
def test_events_of_several_databases_are_delivered_in_the_order_of_writing(outbox: Outbox) -> None:
    servers.require("postgresql")
    save = {
        alias: save_to_outbox(using=alias, name=f"kit.{alias}")(ran.append)
        for alias in ("default", "postgresql")
    }
    for number, alias in enumerate(["postgresql", "default", "default", "postgresql"]):
        save[alias](number)
    assert [sent.using for sent in outbox.events].count("postgresql") == 2
    outbox.drain()
    assert ran == [0, 1, 2, 3]


@pytest.mark.django_db
def test_a_database_that_the_test_may_not_use_is_left_out(outbox: Outbox) -> None:
    servers.require("postgresql")
    save_to_outbox(using="postgresql", name="kit.elsewhere")(ran.append)
    save_to_outbox(using="default", name="kit.here")(ran.append)(1)
    assert "postgresql" in registry.known_aliases()
    assert [event.alias for event in draining.rows_of(*draining.OPEN)] == ["default"]
    outbox.drain()
    assert ran == [1]


@pytest.mark.django_db(transaction=True, databases=["default", "postgresql"])
def test_the_rows_of_a_mirrored_database_count_once(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.require("postgresql")
    save_to_outbox(using="postgresql", name="kit.elsewhere")(ran.append)(1)
    assert len(outbox.events) == 1
    mirror = connections["postgresql"].settings_dict["TEST"]
    monkeypatch.setitem(mirror, "MIRROR", "default")
    assert outbox.events == []


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_is_away_is_not_asked(outbox: Outbox, celery_app: Any) -> None:
    with transaction.atomic():
        celery_app.tasks["kit.pack"].delay(1)
    outbox.assert_sent(celery_app.tasks["kit.pack"], 1)
    outbox.drain()
    assert ran == [("pack", 1)]
    assert not Event.objects.exists()


class TestInAProjectOfItsOwn:
    @pytest.fixture
    def project(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Any:
        """An empty directory, in which the distribution is installed as setup.cfg says."""
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        name = setup["metadata"]["name"]
        info = pytester.mkdir("installed") / f"{name.replace('-', '_')}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(
            "[pytest11]\n" + setup["options.entry_points"]["pytest11"].strip() + "\n"
        )
        monkeypatch.setenv("PYTHONPATH", f"{info.parent}:{ROOT}")
        monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
        monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
        return pytester

    def test_the_fixture_is_there_by_itself(self, project: Any) -> None:
        project.makepyfile(
            settings="""
                SECRET_KEY = "x"
                USE_TZ = True
                INSTALLED_APPS = ["django.contrib.contenttypes", "jaiminho_celery", "shop"]
                CELERY_DB_REUSE_MAX = 10
                DATABASES = {
                    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
                }
            """,
            shop="""
                from jaiminho_celery.send import save_to_outbox

                @save_to_outbox
                def announce(order):
                    print("announced", order)
            """,
            test_shop="""
                from shop import announce

                def test_with_db(outbox, db):
                    announce({"order": 1})
                    outbox.assert_sent("shop:announce", {"order": 1})
                    outbox.drain()
                    assert outbox.events == []

                def test_with_transactions(outbox, transactional_db):
                    announce({"order": 1})
                    (sent,) = outbox.drain()
                    assert sent.args == ({"order": 1},)
            """,
        )
        result = project.runpytest_subprocess("-p", "no:cacheprovider", "--ds=settings", timeout=60)
        result.assert_outcomes(passed=2)

    def test_a_project_without_django_is_not_disturbed(self, project: Any) -> None:
        project.makepyfile(
            """
            import sys

            def test_nothing_is_imported(request):
                assert request.config.pluginmanager.hasplugin("jaiminho_celery.pytest_plugin")
                heavy = {"django", "celery", "kombu", "parviraptor_celery"} & set(sys.modules)
                assert heavy == set()
            """
        )
        # These two plugins import what they are for.
        others = ("-p", "no:django", "-p", "no:celery", "-p", "no:pytest_celery")
        result = project.runpytest_subprocess("-p", "no:cacheprovider", *others, timeout=60)
        result.assert_outcomes(passed=1)
