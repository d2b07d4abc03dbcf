"""The examples of docs/testing.md, as the small project that they are parts of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = re.compile(r"```python\n# (\S+)\n(.*?)```", re.DOTALL)

REST = {
    "settings.py": """
SECRET_KEY = "x"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes", "jaiminho_celery", "parviraptor_celery", "shop",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
        "TEST": {"NAME": "test.sqlite3"},
    }
}
""",
    "shop/__init__.py": "from .celery import app as celery_app\n",
    "shop/celery.py": """
from jaiminho_celery.app import OutboxCelery

app = OutboxCelery("shop", broker="redis://127.0.0.1:1/0")
app.conf.task_ignore_result = True
packed = []


@app.task
def pack(number):
    packed.append(number)
""",
    "shop/models.py": """
from django.db import models

from parviraptor_celery.models import AbstractJobFactory


class Shipment(AbstractJobFactory.make_base_class(["warehouse"])):
    warehouse = models.CharField(max_length=20)

    def process(self):
        from .outbox import announce

        announce({"shipment to": self.warehouse})
""",
}


def test_the_examples_work(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{pytester.path}")
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    examples = EXAMPLE.findall((ROOT / "docs" / "testing.md").read_text())
    for name, source in [*REST.items(), *examples]:
        path = pytester.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    result = pytester.runpytest_subprocess(
        "-p",
        "jaiminho_celery.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "--ds=settings",
        *[name for name, _ in examples if "test" in Path(name).name],
        timeout=120,
    )
    tests = sum(len(re.findall(r"^ *def test_", source, re.MULTILINE)) for _, source in examples)
    all_queues = 2
    assert tests == 8
    assert result.parseoutcomes()["passed"] == tests + all_queues
    assert result.ret == 0
