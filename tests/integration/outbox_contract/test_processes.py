"""Behaviours 1 and 5, with processes that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.supervision import processes

TICK_SECONDS = 0.05
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
