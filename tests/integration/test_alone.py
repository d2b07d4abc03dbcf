"""Each app works without the other in INSTALLED_APPS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = """
SECRET_KEY = "x"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CELERY_DB_REUSE_MAX = 10
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "{app}", "alone"]
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "OPTIONS": {{"transaction_mode": "IMMEDIATE"}},
    }}
}}
"""

START = """
import django
django.setup()
from celery import current_app
from django.core.management import call_command
current_app.conf.task_always_eager = True
call_command("migrate", run_syncdb=True, verbosity=0)
call_command("check", fail_level="WARNING")
"""

OUTBOX = """
from jaiminho_celery import models, tasks
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
seen = []
save_to_outbox(name="now")(seen.append)("now")
save_to_outbox_stream("s", "keep-order", name="in order")(seen.append)("in order")
tasks.relay_events.apply(kwargs={"force": True})
call_command("events_relay")
call_command("event_cleaner")
assert seen == ["now", "in order"], seen
assert [event.status for event in models.Event.objects.all()] == ["SENT"]
"""

QUEUES = """
from alone.models import Export
from parviraptor_celery import tasks
Export.enqueue(shop="a")
tasks.dispatch_jobs.apply(kwargs={"force": True})
call_command("clean_old_processed_jobs", all_queues=True)
assert [job.status for job in Export.objects.all()] == ["PROCESSED"]
"""

MODELS = """
from django.db import models
from parviraptor_celery.models import AbstractJobFactory

class Export(AbstractJobFactory.make_base_class(dependent_fields=["shop"])):
    shop = models.CharField(max_length=10)

    def process(self):
        pass
"""


@pytest.mark.parametrize(
    ("app", "models", "script"),
    [("jaiminho_celery", "", OUTBOX), ("parviraptor_celery", MODELS, QUEUES)],
    ids=["outbox", "queues"],
)
def test_an_app_works_alone(tmp_path: Path, app: str, models: str, script: str) -> None:
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "__init__.py").touch()
    (tmp_path / "alone" / "models.py").write_text(models)
    (tmp_path / "settings_alone.py").write_text(SETTINGS.format(app=app))
    paths = os.pathsep.join([str(tmp_path), os.getcwd()])
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "settings_alone", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", START + script],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
