"""Whatever a Celery message says: it is logged and left alone, and nothing is imported for it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jaiminho_celery.models import Event
from parviraptor_celery import kick_arguments
from tests.faults.canaries import CONTROLS, ORDERS, PAYLOAD, listening
from tests.testapp.models import FreeJob, LaneJob
from tests.unit.events import statuses as event_statuses
from tests.unit.jobs import statuses

pytestmark = pytest.mark.django_db

Kicked = Callable[[], list[tuple[str, dict[str, Any]]]]

CANARY = "tests.testapp.canary"
LONGEST_LINE = 1000
DEEP: Any = []
for _ in range(5000):
    DEEP = [DEEP]

TASKS = {
    "parviraptor_celery.process_jobs": {"queue": "testapp.LaneJob", "lanes": ["0" * 32]},
    "parviraptor_celery.dispatch_jobs": {"queue": "testapp.LaneJob"},
    "parviraptor_celery.clean_jobs": {},
    "jaiminho_celery.relay_events": {"using": "default", "lanes": ["0" * 32]},
    "jaiminho_celery.clean_events": {},
}
"""Every task of both apps, with a kick that makes sense."""

VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "negative": -1,
    "huge": 10**40,
    "fraction": 1.5,
    "nan": float("nan"),
    "empty": "",
    "unknown": "nowhere",
    "a class that is no model": "tests.unit.jobs.Budget",
    "a model that is no queue": "testapp.Note",
    "a user": "auth.User",
    "a base class": "parviraptor_celery.AbstractJob",
    "sql": "x'; DROP TABLE testapp_lanejob; --",
    "code": "__import__('os').system('true')",
    "a module": CANARY,
    "a name in a module": f"{CANARY}:run",
    "a name in a class": f"{CANARY}.Run",
    "nul": "testapp.Lane\0Job",
    "half a character": "\ud800",
    "orders": ORDERS,
    "long": PAYLOAD * 500_000,
    "a list of lists": [["testapp.LaneJob"], [[]]],
    "a list of all": [
        None,
        7,
        1.5,
        {},
        [],
        "a",
        "A" * 32,
        "' OR 1 = 1 --",
        "\0" * 32,
        f"{0:032}\n",
    ],
    "a dictionary": {"queue": {"testapp": "LaneJob"}},
    "a deep list": DEEP,
    "many lanes": [f"{0:032x}"] * 1_000_000,
    "many texts": [PAYLOAD] * 1_000_000,
}


@pytest.fixture(autouse=True)
def nothing_is_imported() -> Iterator[None]:
    """The canary raises when it is imported; that nobody even tried is seen here."""
    sys.modules.pop(CANARY, None)
    before = set(sys.modules)
    yield
    assert not [name for name in set(sys.modules) - before if "canary" in name.split(".")]


def run(app: Celery, task: str, *args: Any, **kwargs: Any) -> tuple[Any, list[str]]:
    """Run a task as a worker would; return its end, and what was logged."""
    with listening() as lines:
        done = app.tasks[task].apply(args=args, kwargs=kwargs, throw=False)
    return done, lines


def test_every_task_of_both_apps_is_among_these(celery_in_memory: Celery) -> None:
    ours = {name for name in celery_in_memory.tasks if name.split(".")[0] in _APPS}
    assert ours == set(TASKS)


_APPS = ("parviraptor_celery", "jaiminho_celery")
PARAMETERS = [
    ("parviraptor_celery.process_jobs", "queue using lanes"),
    ("parviraptor_celery.dispatch_jobs", "force queue using after asked_by"),
    ("parviraptor_celery.clean_jobs", ""),
    ("jaiminho_celery.relay_events", "using lanes force"),
    ("jaiminho_celery.clean_events", ""),
]


@pytest.mark.parametrize(("task", "names"), PARAMETERS)
def test_every_parameter_is_among_these(celery_in_memory: Celery, task: str, names: str) -> None:
    parameters = inspect.signature(celery_in_memory.tasks[task].run).parameters
    assert list(parameters) == names.split()


@pytest.mark.parametrize(
    ("task", "name"), [(task, name) for task, names in PARAMETERS for name in names.split()]
)
def test_any_value_in_any_place_is_survived(
    celery_in_memory: Celery,
    kicked: Kicked,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    name: str,
) -> None:
    monkeypatch.setattr(kick_arguments, "MOST_LANES", 100)
    for what, value in VALUES.items():
        done, lines = run(celery_in_memory, task, **{**TASKS[task], name: value})
        assert done.state == "SUCCESS", f"{what}: {done.traceback}"
        assert kicked() == [], what
        assert max(map(len, lines), default=0) < LONGEST_LINE, what
        assert not CONTROLS.search("".join(lines)), what


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((PAYLOAD,) * 9, {}), ((), {"payload": PAYLOAD}), ((PAYLOAD,), {"lanes": PAYLOAD})],
    ids=["too many", "an unknown name", "twice the same, or unknown"],
)
def test_arguments_that_no_task_takes_fail_once(
    celery_in_memory: Celery, kicked: Kicked, task: str, args: tuple[str, ...], kwargs: Any
) -> None:
    done, lines = run(celery_in_memory, task, *args, **kwargs)
    if done.state != "SUCCESS":
        assert (done.state, type(done.result)) == ("FAILURE", TypeError)
    assert kicked() == []
    assert not [line for line in lines if PAYLOAD * 2 in line]


def test_a_kick_works_after_all_that(celery_in_memory: Celery, kicked: Kicked, outbox: Any) -> None:
    lane, free = LaneJob.objects.create(), FreeJob.objects.create()
    outbox.in_order(PAYLOAD)
    kicked()
    for value in VALUES.values():
        run(celery_in_memory, "parviraptor_celery.process_jobs", "testapp.LaneJob", lanes=value)
        if value:
            run(celery_in_memory, "jaiminho_celery.relay_events", "default", lanes=value)
    assert (statuses(LaneJob), event_statuses()) == (["NEW"], ["WAITING"])
    kick = {"queue": "testapp.LaneJob", "lanes": [lane.lane]}
    run(celery_in_memory, "parviraptor_celery.process_jobs", **kick)
    run(celery_in_memory, "parviraptor_celery.process_jobs", "testapp.FreeJob")
    lanes = [Event.objects.get().lane]
    _, lines = run(celery_in_memory, "jaiminho_celery.relay_events", "default", lanes=lanes)
    free.refresh_from_db()
    assert (statuses(LaneJob), free.status) == (["PROCESSED"], "PROCESSED")
    assert event_statuses() == ["SENT"]
    assert PAYLOAD not in "".join(lines)


def test_a_kick_names_no_more_lanes_than_ours_do(
    celery_in_memory: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kick_arguments, "MOST_LANES", 3)
    lanes = [f"{number:032x}" for number in range(10)]
    for about in ({"queue": "testapp.LaneJob"}, {"using": "default"}):
        task = "process_jobs" if "queue" in about else "relay_events"
        app = "parviraptor_celery" if "queue" in about else "jaiminho_celery"
        with CaptureQueriesContext(connection) as queries:
            _, lines = run(celery_in_memory, f"{app}.{task}", **about, lanes=lanes)
        asked = {lane for lane in lanes if any(lane in query["sql"] for query in queries)}
        assert asked == set(lanes[:3])
        assert any("7 of its lanes are none, or too many" in line for line in lines)
