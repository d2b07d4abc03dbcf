"""How the functions behind rows are found by a process that starts anew, as a worker does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = """
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = [
    "jaiminho_celery",
    "shop",
    "suite.stock.apps.StockConfig",
    "plain",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "DIRECTORY/db.sqlite3",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }
}
"""

BEFORE = {
    "shop/__init__.py": "",
    "shop/outbox.py": """
from jaiminho_celery.send import save_to_outbox_stream

@save_to_outbox_stream("s", "keep-order")
def announce(payload):
    print("shop.outbox:announce", payload)
""",
    "shop/orders.py": """
from jaiminho_celery.send import save_to_outbox_stream

class Order:
    @classmethod
    @save_to_outbox_stream("s", "keep-order")
    def pack(cls, payload):
        print("shop.orders:Order.pack", cls.__name__, payload)

@save_to_outbox_stream("s", "keep-order")
def invoice(payload):
    print("shop.orders:invoice", payload)
""",
    "shop/bystander.py": "raise AssertionError('nobody named this module')",
    "suite/__init__.py": "",
    "suite/stock/__init__.py": "",
    "suite/stock/apps.py": """
from django.apps import AppConfig

class StockConfig(AppConfig):
    name = "suite.stock"
""",
    "suite/stock/outbox.py": """
from jaiminho_celery.send import save_to_outbox_stream

@save_to_outbox_stream("s", "keep-order")
def tell(payload):
    print("suite.stock.outbox:tell", payload)
""",
    "suite/orders.py": """
from jaiminho_celery.send import save_to_outbox_stream
from shop.orders import Order

class Gift(Order):
    pass

@save_to_outbox_stream("outside", "keep-order")
def outside(payload):
    print("suite.orders:outside", payload)
""",
    "plain/__init__.py": "",
}

MOVED = """
from jaiminho_celery.send import save_to_outbox_stream

@save_to_outbox_stream("s", "keep-order", aliases=["shop.orders:invoice"])
def bill(payload):
    print("moved to suite.stock.outbox:bill", payload)
"""

SET_UP = """
import sys
import django
django.setup()
from celery import current_app
current_app.conf.broker_url = "memory://"
from jaiminho_celery import registry
"""

WRITE = """
from django.core.management import call_command
call_command("migrate", verbosity=0)
import shop.outbox, shop.orders, suite.stock.outbox, suite.orders
shop.outbox.announce(1)
shop.orders.invoice(2)
shop.orders.Order.pack(3)
suite.stock.outbox.tell(4)
suite.orders.outside(5)
"""

RELAY = """
import io
from django.core.management import call_command
call_command("events_relay", stdout=io.StringIO())
from jaiminho_celery.models import Event
print("waiting", *Event.rows("default").unsent().values_list("name", flat=True))
print("imported", *(name for name in sorted(sys.modules) if name.startswith(("shop", "suite."))))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of three apps, of which one has no `outbox.py`."""
    for name, source in BEFORE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    (tmp_path / "own_settings.py").write_text(SETTINGS.replace("DIRECTORY", str(tmp_path)))
    return tmp_path


def run(project: Path, source: str) -> list[str]:
    """Run a new process in the project; return what it prints."""
    paths = [str(project), str(Path(__file__).resolve().parents[2])]
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "own_settings",
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", SET_UP + source],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_outbox_py_of_every_installed_app_is_imported_at_the_start(project: Path) -> None:
    names = run(project, "print(*(function.name for function in registry.all_functions()))")
    assert names == ["celery.message shop.outbox:announce suite.stock.outbox:tell"]


def test_an_outbox_py_that_can_not_be_imported_fails_the_start(project: Path) -> None:
    """Rather that than a worker that silently lacks functions."""
    (project / "plain" / "outbox.py").write_text("import no_such_package_anywhere")
    with pytest.raises(AssertionError, match="no_such_package_anywhere"):
        run(project, "")


def test_beyond_that_modules_are_imported_on_a_rows_word_inside_installed_apps_only(
    project: Path,
) -> None:
    run(project, WRITE)
    assert run(project, RELAY) == [
        "shop.outbox:announce 1",
        "shop.orders:invoice 2",
        "shop.orders:Order.pack Order 3",
        "suite.stock.outbox:tell 4",
        "waiting suite.orders:outside",
        "imported shop shop.orders shop.outbox suite.stock suite.stock.apps suite.stock.outbox",
    ]


def test_a_function_that_moved_is_found_by_its_former_name(project: Path) -> None:
    run(project, WRITE)
    (project / "shop" / "orders.py").write_text("class Order: pass")
    (project / "suite" / "stock" / "outbox.py").write_text(MOVED)
    assert run(project, RELAY)[:2] == [
        "shop.outbox:announce 1",
        "moved to suite.stock.outbox:bill 2",
    ]


def test_a_function_that_is_gone_holds_its_stream_until_it_is_back(project: Path) -> None:
    run(project, WRITE)
    (project / "shop" / "orders.py").unlink()
    printed = run(project, RELAY)
    assert printed[0] == "shop.outbox:announce 1"
    assert printed[1].startswith("waiting shop.orders:invoice shop.orders:Order.pack suite.stock")
    (project / "shop" / "orders.py").write_text(BEFORE["shop/orders.py"])
    let_be_due = 'Event.rows("default").update(run_after=None)'
    printed = run(project, f"from jaiminho_celery.models import Event\n{let_be_due}\n{RELAY}")
    assert printed[:3] == [
        "shop.orders:invoice 2",
        "shop.orders:Order.pack Order 3",
        "suite.stock.outbox:tell 4",
    ]


def test_a_subclass_outside_of_the_installed_apps_waits_until_somebody_imports_it(
    project: Path,
) -> None:
    run(project, f"{WRITE}\nfrom jaiminho_celery.models import Event\nEvent.objects.all().delete()")
    run(project, "import suite.orders; suite.orders.Gift.pack(6)")
    assert run(project, RELAY)[0] == "waiting shop.orders:Order.pack"
    let_be_due = 'Event.rows("default").update(run_after=None)'
    later = f"import suite.orders\nfrom jaiminho_celery.models import Event\n{let_be_due}\n{RELAY}"
    assert run(project, later)[0] == "shop.orders:Order.pack Gift 6"
