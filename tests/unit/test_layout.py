"""The import rules: the queues know nothing of the outbox, and Celery stays behind few doors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUEUES, OUTBOX = "parviraptor_celery", "jaiminho_celery"
CELERY = frozenset({"celery", "kombu"})
CELERY_MODULES = frozenset(
    {
        *("app", "broker", "capture", "entities", "local_worker", "messages", "tasks", "wire"),
        *("transports", "worker", "consumers", "task_events"),
    }
)
LIBRARY = sorted(path for app in (QUEUES, OUTBOX) for path in (ROOT / app).rglob("*.py"))


def test_both_apps_are_looked_at() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in LIBRARY} == {QUEUES, OUTBOX}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_it_may(path: Path) -> None:
    forbidden = _forbidden_to(path.relative_to(ROOT))
    wrong = [
        f"line {line}: {module}"
        for line, module in imports(path.read_text(), path.relative_to(ROOT))
        if module.partition(".")[0] in forbidden
    ]
    assert not wrong, f"{path.relative_to(ROOT)} must not import {', '.join(sorted(forbidden))}"


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import celery", "celery"),
        ("from kombu.utils import json", "kombu.utils"),
        ("def f():\n    import tests.settings as s", "tests.settings"),
        ("from .models import Event", "jaiminho_celery.models"),
        ("from . import models", "jaiminho_celery"),
        ("import importlib\nimportlib.import_module('celery')", "celery"),
        ("from importlib import import_module\nimport_module('celery.app')", "celery.app"),
    ],
)
def test_every_kind_of_import_is_seen(source: str, module: str) -> None:
    assert module in [name for _, name in imports(source, Path("jaiminho_celery/send.py"))]


def test_an_import_for_the_type_checker_alone_is_free() -> None:
    source = "if TYPE_CHECKING:\n    import celery\nelse:\n    import kombu\n"
    assert [name for _, name in imports(source, Path("jaiminho_celery/send.py"))] == ["kombu"]


def imports(source: str, path: Path) -> list[tuple[int, str]]:
    """Return line and absolute module name of every import in the source of a module."""
    package = path.parent.parts
    found = []
    for node in _nodes_that_run(ast.parse(source)):
        found += [(node.lineno, name) for name in _imported(node, package)]  # type: ignore[attr-defined]
    return found


def _forbidden_to(path: Path) -> frozenset[str]:
    forbidden = {"example_project", "tests"}
    if path.parts[0] == QUEUES:
        forbidden.add(OUTBOX)
    if path.stem not in CELERY_MODULES:
        forbidden |= CELERY
    return frozenset(forbidden)


def _nodes_that_run(node: ast.AST) -> Iterator[ast.AST]:
    """Walk the tree, but not into `if TYPE_CHECKING:`."""
    yield node
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children = iter(node.orelse)
    for child in children:
        yield from _nodes_that_run(child)


def _imported(node: ast.AST, package: tuple[str, ...]) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=module, level=0):
            return [module or ""]
        case ast.ImportFrom(module=module, level=level):
            base = package[: len(package) - level + 1]
            return [".".join([*base, *([module] if module else [])])]
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            return [name]
    return []
