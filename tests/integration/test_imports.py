"""What has to be importable in a project's celery.py, before Django has set up its apps."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "statement",
    [
        "from jaiminho_celery.app import OutboxCelery; OutboxCelery('shop')",
        "from jaiminho_celery.send import save_to_outbox; save_to_outbox(using='x')(print)",
        "from jaiminho_celery.constants import PublishStrategyType",
        "from jaiminho_celery import signals, exceptions",
        "from parviraptor_celery import exceptions, signals, backoff",
        "import parviraptor_celery.schedule, jaiminho_celery.schedule",
    ],
)
def test_it_is_importable_before_django_is_set_up(statement: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-c", statement],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
