"""Which databases are looked at for the rows of a model."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections

from parviraptor_celery import aliases
from tests.testapp.models import FifoJob


@pytest.fixture
def second(settings: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A second entry of DATABASES, like the first; a test changes what it likes."""
    entry: dict[str, Any] = {**connections["default"].settings_dict, "TEST": {}}
    monkeypatch.setitem(settings.DATABASES, "second", entry)
    monkeypatch.setattr(aliases, "_tables_in", lambda _: frozenset({FifoJob._meta.db_table}))
    return entry


def test_another_database_with_the_table_is_looked_at(second: dict[str, Any]) -> None:
    second["NAME"] = "another"
    assert "second" in aliases.aliases_holding(FifoJob, ["default"])


def test_a_second_name_for_a_database_is_not(second: dict[str, Any]) -> None:
    assert "second" not in aliases.aliases_holding(FifoJob, ["default"])


def test_the_mirror_of_another_is_not(second: dict[str, Any]) -> None:
    second.update(NAME="another", TEST={"MIRROR": "default"})
    assert "second" not in aliases.aliases_holding(FifoJob, ["default"])
