"""A user's own makemigrations: the right indexes and constraints on each engine, there and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from .users_app import constraints, migrate, tables, users_app

MODELS = """
from django.db import models
from parviraptor_celery.models import AbstractJobFactory

class Ordered(AbstractJobFactory.make_base_class(dependent_fields=["shop"])):
    shop = models.CharField(max_length=40)
    def process(self): pass

class Free(AbstractJobFactory.make_base_class(dependent_fields=None)):
    def process(self): pass
"""
ORDERED = {
    ("lane,id", "NEW"),
    ("lane,failed_by,id", "FAILED"),
    ("lane,id", "DEFERRED"),
    ("id", "PROCESSING"),
    ("modification_date", "PROCESSED"),
}


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, django_db_setup: None, django_db_blocker: Any
) -> Iterator[ModuleType]:
    """The models of a user's app, whose migration was made while SQLite was the default."""
    with users_app(tmp_path_factory.mktemp("project")) as app:
        models = app.write(MODELS)
        with django_db_blocker.unblock():
            app.make_migration("initial")
        yield models


def test_the_migration_makes_the_indexes_and_constraints_and_takes_them_back(
    using: str, made: Any
) -> None:
    migrate(using)
    try:
        assert "usershop_ordered" in tables(using)
        assert_indexes(using, made.Ordered, ORDERED)
        names = set(constraints(using, made.Ordered._meta.db_table))
        assert {f"usershop_ordered_{check}" for check in ("status", "lease", "key")} <= names
        job = made.Ordered(shop="a")
        made.Ordered.rows(using).bulk_create([job])
        assert made.Ordered.rows(using).get().lane == job.lane
    finally:
        migrate(using, "zero")
    assert not {"usershop_ordered", "usershop_free"} & tables(using)


def assert_indexes(using: str, model: Any, expected: set[tuple[str, str]]) -> None:
    found = indexes(using, model)
    own = {index.name: index for index in model._meta.indexes if hasattr(index, "status")}
    if connections[using].features.supports_partial_indexes:
        assert {(columns, own[name].status) for name, columns in found.items()} == expected
        for name, condition in conditions(using, model).items():
            assert f"'{own[name].status}'" in condition
    else:
        # One index serves every status there, so those of FAILED are left out.
        full = {f"status,{columns}" for columns, status in expected if status != "FAILED"}
        assert set(found.values()) == full


def indexes(using: str, model: Any) -> dict[str, str]:
    """Return the columns of each index of ours by its name, as the database has them."""
    found = constraints(using, model._meta.db_table).items()
    own = {index.name for index in model._meta.indexes}
    return {name: ",".join(about["columns"]) for name, about in found if name in own}


def conditions(using: str, model: Any) -> dict[str, str]:
    """Return the statement that made each index of ours, as the database tells it."""
    question = {
        "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = %s",
        "postgresql": "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s",
    }[connections[using].vendor]
    own = {index.name for index in model._meta.indexes}
    with connections[using].cursor() as cursor:
        cursor.execute(question, [model._meta.db_table])
        return {name: sql.partition(" WHERE ")[2] for name, sql in cursor.fetchall() if name in own}


@pytest.mark.django_db(databases="__all__")
def test_there_is_nothing_left_to_migrate(made: Any) -> None:
    call_command("makemigrations", "usershop", check=True, dry_run=True, verbosity=0)
    text = Path(made.__file__).with_name("migrations").joinpath("0001_initial.py").read_text()
    assert "parviraptor_celery.indexes.StatusIndex" in text
    assert "CheckConstraint" in text
