"""What the README of the original queues shows, word for word, in a small project of a user.

Only the name of the package has changed: `parviraptor` is `parviraptor_celery`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervision import processes

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0

PROJECT = {
    "manage.py": """
import os, sys
from django.core.management import execute_from_command_line

os.environ["DJANGO_SETTINGS_MODULE"] = "readme_settings"
execute_from_command_line(sys.argv)
""",
    "readme_settings.py": """
SECRET_KEY = "x"
USE_TZ = True
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "readme_urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    'parviraptor_celery',
    "very_busy_app",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
}]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "db.sqlite3",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
        "TEST": {"NAME": "test.sqlite3"},
    }
}
CELERY_DB_REUSE_MAX = 1000
""",
    "readme_urls.py": """
from django.urls import include, path
urlpatterns = [
    # ...
    path("", include("parviraptor_celery.urls")),
    # ...
]
""",
    "very_busy_app/__init__.py": "",
    "very_busy_app/migrations/__init__.py": "",
    "very_busy_app/models.py": """
from django.db import models
from parviraptor_celery.models import AbstractJobFactory


class HeavyDutyJob(AbstractJobFactory.make_base_class(dependent_fields=["shop"])):
    shop = models.CharField(max_length=20)

    def process(self):
        if self.shop == "away" and self.error_count == 0:
            self.raise_temporary_failure("the shop is away")
        if self.shop == "broken":
            raise ValueError("the shop is broken")
        print(f"processed {self.pk} of {self.shop}", flush=True)


class LightJob(AbstractJobFactory.make_base_class(dependent_fields=None)):
    def process(self):
        pass
""",
    "very_busy_app/tests.py": """
from parviraptor_celery.test import JobEntryFactory, make_test_case_for_all_queues

from .models import HeavyDutyJob, LightJob


class Entries(JobEntryFactory):
    def create_heavy_duty_job(self):
        return [HeavyDutyJob(shop=shop) for shop in "abcabc"]

    def create_light_job(self):
        return [LightJob(), LightJob()]


AllQueuesTestCase = make_test_case_for_all_queues(Entries)


class QueuesTest(AllQueuesTestCase):
    def test_all_queues_are_covered(self):
        self.assertEqual(sorted(self.queues), ["HeavyDutyJob", "LightJob"])


del AllQueuesTestCase
""",
}

ENQUEUE = """
from very_busy_app.models import HeavyDutyJob
for shop in {shops!r}:
    HeavyDutyJob.objects.create(shop=shop)
"""

MAKE_OLD = """
from datetime import timedelta
from django.db.models import F
from very_busy_app.models import HeavyDutyJob
age = timedelta(days={days})
print(HeavyDutyJob.objects.update(modification_date=F("modification_date") - age))
"""

AGE_CREATION = """
from datetime import timedelta
from django.db.models import F
from very_busy_app.models import HeavyDutyJob
age = timedelta(minutes=961)
print(HeavyDutyJob.objects.update(creation_date=F("creation_date") - age))
"""

LET_BE_DUE = """
from very_busy_app.models import HeavyDutyJob
HeavyDutyJob.objects.update(run_after=None)
"""

GET = """
from django.test import Client
response = Client().get({path!r})
assert response.status_code == 200, response.status_code
print(response.content.decode())
"""

LEFT = """
from very_busy_app.models import HeavyDutyJob
print(*HeavyDutyJob.objects.order_by("pk").values_list("status", flat=True))
"""


class Project:
    """A project of a user's own, on SQLite, without a broker."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name, source in PROJECT.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(source)
        kept = {name: value for name, value in os.environ.items() if "DJANGO" not in name}
        self.environment = {
            **kept,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",  # where nobody is
        }

    def manage(self, *arguments: str) -> str:
        """Run `./manage.py …`; return what it says."""
        ran = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            check=False,
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert ran.returncode == 0, f"{arguments}: {ran.stdout}{ran.stderr}"
        return ran.stdout + (ran.stderr if arguments[0] == "test" else "")

    def shell(self, source: str) -> str:
        return self.manage("shell", "--verbosity", "0", "-c", source).strip()

    def get(self, path: str) -> str:
        return self.shell(GET.format(path=path))

    def process(self, *arguments: str, left: str, number: int = signal.SIGTERM) -> str:
        """Run `./manage.py process_queue …` until the jobs are what is `left`, then signal it."""
        log = self.path / "process_queue.log"
        with log.open("w") as out:
            worker = subprocess.Popen(
                [sys.executable, "manage.py", "process_queue", *arguments],
                cwd=self.path,
                env={**self.environment, "PYTHONUNBUFFERED": "1"},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            processes.wait_until(lambda: self.shell(LEFT) == left, SECONDS, left)
            worker.send_signal(number)
            assert worker.wait(SECONDS) == 0, log.read_text()
        finally:
            worker.kill()
            worker.wait(SECONDS)
        return log.read_text()


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("readme"))
    project.manage("makemigrations", "very_busy_app")
    project.manage("migrate")
    return project


@pytest.fixture
def project(migrated: Project) -> Iterator[Project]:
    """The project, with empty tables."""
    migrated.manage("flush", "--no-input")
    return migrated


def test_the_app_is_just_added_to_the_installed_apps(project: Project) -> None:
    assert "no issues" in project.manage("check")
    assert "No changes detected" in project.manage("makemigrations", "--check", "--dry-run")


def test_process_queue_is_called_as_in_the_example(project: Project) -> None:
    project.shell(ENQUEUE.format(shops=["a", "away", "broken", "broken", "b"]))
    left = "PROCESSED NEW FAILED FAILED PROCESSED"
    said = project.process("very_busy_app", "HeavyDutyJob", left=left)
    assert "processed 1 of a" in said
    assert "processed 5 of b" in said
    assert project.get("/queue-monitoring/") == (
        "There are 2 failed, 0 long processing and 0 long unprocessed HeavyDutyJobs."
    )
    project.shell(LET_BE_DUE)
    left = left.replace("NEW", "PROCESSED")
    project.process("very_busy_app", "HeavyDutyJob", left=left, number=signal.SIGINT)


def test_the_monitoring_pages_say_what_they_said(project: Project) -> None:
    assert project.get("/queue-monitoring/") == "Alles OK"
    project.shell(ENQUEUE.format(shops=["a", "b", "c"]))
    assert project.get("/queue-monitoring/") == "Alles OK"
    page = project.get("/open-queue-entries/")
    assert "<style>" in page
    assert "<table" in page
    assert "very_busy_app.HeavyDutyJob" in page
    assert project.shell(AGE_CREATION) == "3"
    assert project.get("/queue-monitoring/") == (
        "There are 0 failed, 0 long processing and 3 long unprocessed HeavyDutyJobs."
    )


def test_old_processed_jobs_can_be_cleaned(project: Project) -> None:
    project.shell(ENQUEUE.format(shops=["a", "broken"]))
    project.process("very_busy_app", "HeavyDutyJob", left="PROCESSED FAILED")
    for days, left in ((6, "PROCESSED FAILED"), (2, "FAILED")):
        assert project.shell(MAKE_OLD.format(days=days)) == "2"
        before = project.shell(LEFT)
        project.manage("clean_old_processed_jobs", "--dry-run", "--all-queues")
        assert project.shell(LEFT) == before
        project.manage("clean_old_processed_jobs", "--all-queues")
        assert project.shell(LEFT) == left


def test_the_test_case_covers_all_queues(project: Project) -> None:
    said = project.manage("test")
    assert "Ran 3 tests" in said
    assert "OK" in said
