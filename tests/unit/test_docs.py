"""The documentation against the code: tests that it names exist, diagrams show the real states."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from jaiminho_celery.states import TRANSITIONS as EVENT_TRANSITIONS
from parviraptor_celery.attribute_checks import RULES
from parviraptor_celery.states import TRANSITIONS as JOB_TRANSITIONS
from tests.guarantees import NAMED_TEST

ROOT = Path(__file__).resolve().parents[2]
ARROW = re.compile(r"^\s*([A-Z]+) --> ([A-Z]+)", re.MULTILINE)


def test_every_test_that_the_guarantees_name_exists() -> None:
    file, named, missing = "", 0, []
    for given, name in NAMED_TEST.findall((ROOT / "docs" / "guarantees.md").read_text()):
        file, named = given or file, named + 1
        if not re.search(rf"^\s*(def|class) {name}\b", (ROOT / "tests" / file).read_text(), re.M):
            missing.append(f"{file}::{name}")
    assert named > 50
    assert missing == []


@pytest.mark.parametrize(
    ("states", "transitions"),
    [({"PUBLISHING"}, EVENT_TRANSITIONS), ({"PROCESSING"}, JOB_TRANSITIONS)],
    ids=["events", "jobs"],
)
def test_the_diagram_shows_the_transitions(states: set[str], transitions: Any) -> None:
    diagrams = re.findall(r"```mermaid\n(.*?)```", (ROOT / "docs/lifecycle.md").read_text(), re.S)
    (diagram,) = (text for text in diagrams if any(state in text for state in states))
    shown = set(ARROW.findall(diagram))
    assert shown == {(str(a), str(b)) for a, following in transitions.items() for b in following}


def test_every_relative_link_leads_somewhere() -> None:
    broken = []
    for page in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        ROOT / "example_project/README.md",
        ROOT / "benchmarks/README.md",
    ]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


@pytest.mark.parametrize("package", ["jaiminho_celery", "parviraptor_celery"])
def test_the_lifecycle_says_what_each_module_does(package: str) -> None:
    page = (ROOT / "docs/lifecycle.md").read_text()
    modules = {path.name for path in (ROOT / package).glob("[!_]*.py")}
    assert {name for name in modules if f"`{name}`" not in page} == set()


def test_the_settings_name_every_check_of_a_queue() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    ids = {
        found
        for path in (ROOT / "parviraptor_celery").glob("*checks.py")
        for found in re.findall(r'id="(parviraptor_celery\.[EW]\d+)"', path.read_text())
    }
    assert len(ids) > 10
    assert {found for found in ids if f"`{found}`" not in page} == set()


def test_the_settings_name_every_attribute_of_a_queue() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    assert {name for name in RULES if f"| `{name}` |" not in page} == set()
