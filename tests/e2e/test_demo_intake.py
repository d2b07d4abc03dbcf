"""The example's endpoint under bad input: a clear error, and nothing half done."""

from __future__ import annotations

import http.client
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.supervision import processes

ROOT = Path(__file__).resolve().parent.parent.parent
GOOD = {
    "departed_at": "2013-01-01T05:17",
    "carrier": "UA",
    "flight": 1545,
    "tailnum": "N14228",
    "origin": "EWR",
    "dest": "IAH",
    "dep_delay_min": 2,
    "air_time_min": None,
    "distance_mi": 1400,
}

Call = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    """The web application alone, without worker and broker: what is accepted has to wait."""
    directory = tmp_path_factory.mktemp("intake")
    unused = f"redis://127.0.0.1:{processes.free_port()}/0"
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
        "DATABASE_URL": "",
        "CELERY_BROKER_URL": unused,
        "EXAMPLE_DIR": str(directory),
    }
    port = processes.free_port()

    def request(method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request(method, path, body)
        response = connection.getresponse()
        answer = response.status, response.read().decode()
        connection.close()
        return answer

    with processes.Supervisor() as supervisor:
        manage = [sys.executable, "-m", "example_project.manage"]
        log = directory / "log"
        migration = supervisor.start(
            "migrate", [*manage, "migrate"], env=environment, cwd=ROOT, log=log
        )
        assert migration.wait(60) == 0, log.read_text()
        serve = [sys.executable, "-m", "waitress", f"--listen=127.0.0.1:{port}"]
        supervisor.start(
            "web",
            [*serve, "example_project.wsgi:application"],
            env=environment,
            cwd=ROOT,
            log=log,
            ready=lambda: processes.port_answers("127.0.0.1", port),
        )
        yield request


def post(call: Call, data: Any) -> tuple[int, Any]:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    status, text = call("POST", "/departures/", body)
    return status, json.loads(text)


def accepted(call: Call) -> int:
    """How many departures the start page shows."""
    status, page = call("GET", "/")
    assert status == 200
    found = re.search(r"<strong>(\d+)</strong> departures? accepted", page)
    assert found, page
    return int(found[1])


@pytest.mark.parametrize(
    ("data", "field", "message"),
    [
        pytest.param(b"departed", "__all__", "This is not JSON", id="no JSON"),
        pytest.param(b"\xff\xfe", "__all__", "This is not JSON", id="no text"),
        pytest.param(b"[" * 100_000, "__all__", "nested too deeply", id="deep JSON"),
        pytest.param([GOOD], "__all__", "A departure is a JSON object", id="a list"),
        pytest.param({}, "carrier", "required", id="nothing in it"),
        pytest.param({**GOOD, "origin": "XYZ"}, "origin", "EWR, JFK, LGA", id="unknown origin"),
        pytest.param({**GOOD, "departed_at": "soon"}, "departed_at", "valid date", id="no time"),
        pytest.param({**GOOD, "distance_mi": -1}, "distance_mi", "greater", id="too small"),
        pytest.param({**GOOD, "flight": 10**30}, "flight", "less than", id="too large"),
        pytest.param({**GOOD, "carrier": "UAL"}, "carrier", "at most 2", id="too long"),
        pytest.param({**GOOD, "tailnum": "N\0"}, "tailnum", "Null", id="a NUL"),
        pytest.param({**GOOD, "air_time": 5}, "__all__", "Unknown field", id="a misspelt field"),
    ],
)
def test_bad_input_is_refused_with_the_reason(
    call: Call, data: Any, field: str, message: str
) -> None:
    before = accepted(call)
    status, answer = post(call, data)
    assert status == 400
    assert message in " ".join(answer["errors"][field])
    assert accepted(call) == before


def test_a_departure_is_accepted_once_even_while_the_broker_is_away(call: Call) -> None:
    before = accepted(call)
    assert post(call, GOOD)[0] == 201
    status, answer = post(call, GOOD)
    assert status == 409
    assert "accepted already" in " ".join(answer["errors"]["__all__"])
    assert accepted(call) == before + 1


def test_the_pages_show_what_waits(call: Call) -> None:
    assert post(call, {**GOOD, "flight": 1546})[0] == 201
    status, page = call("GET", "/")
    assert status == 200
    assert "departures-EWR" in page
    assert "NEW" in page
    for path in ("/queue-monitoring/", "/open-queue-entries/", "/admin/login/"):
        assert call("GET", path)[0] == 200
