"""Nobody asks the time but through ``clock.py``: ``virtual_clock`` could not move it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
OWN_CLOCK = {"clock.py", "virtual_clock.py"}
# Times to live of messages: the broker counts them, by its own clock.
OF_THE_BROKER = {"capture.py", "transports.py"}
MODULES = [
    path
    for app in ("parviraptor_celery", "jaiminho_celery")
    for path in sorted((ROOT / app).rglob("*.py"))
    if path.name not in OWN_CLOCK | OF_THE_BROKER and "migrations" not in path.parts
]
ASKING = {("timezone", "now"), ("datetime", "now"), ("datetime", "utcnow"), ("time", "time")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_asks_the_time_through_the_clock(path: Path) -> None:
    lines = asked_in(path.read_text())
    assert not lines, f"lines {lines} of {path.name}: use clock.local_now(), or now() in SQL"


def test_what_asks_python_for_the_time_is_seen() -> None:
    assert asked_in("moment = timezone.now()\nborn = Field(default=timezone.now)") == [1]
    assert asked_in("from django.db.models.functions import Now\nrows.filter(at__lt=Now())") == [2]


def asked_in(source: str) -> list[int]:
    """Return the lines that call a clock of Python's, or Django's ``Now()``."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if _asks(call.func)]


def _asks(function: ast.expr) -> bool:
    match function:
        case ast.Attribute(value=ast.Name(id=owner), attr=name):
            return (owner, name) in ASKING
        case ast.Name(id="Now"):
            return True
    return False
