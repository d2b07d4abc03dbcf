"""A queue's model or table gets another name: makemigrations and migrate on each engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connections, transaction
from django.db.migrations.questioner import InteractiveMigrationQuestioner

from parviraptor_celery.database_checks import check_pauses
from parviraptor_celery.models import Pause

from .users_app import UsersApp, constraints, migrate, tables, users_app

MODELS = """
from django.db import models
from parviraptor_celery.models import AbstractJobFactory

Ordered = AbstractJobFactory.make_base_class(dependent_fields=["shop"])
Independent = AbstractJobFactory.make_base_class(dependent_fields=None)

class {0}(Ordered):
    shop = models.CharField(max_length=40)
    def process(self): pass
    class Meta(Ordered.Meta):
        {1}

class {0}Free(Independent):
    def process(self): pass
    class Meta(Independent.Meta):
        pass
"""
MOVE_PAUSES = """
def move_pauses(before, after):
    def move(apps, schema_editor):
        pauses = apps.get_model("parviraptor_celery", "Pause").objects
        of_queue = pauses.using(schema_editor.connection.alias).filter(queue=before)
        of_queue.update(queue=after)

    return move


Migration.dependencies.append(("parviraptor_celery", "0001_initial"))
Migration.operations.append(migrations.RunPython(
    move_pauses("usershop.parcel", "usershop.box"), move_pauses("usershop.box", "usershop.parcel")
))
"""
"""What docs/operations.md says."""

STEPS = {"parcels": ("Parcel", "pass"), "boxes": ("Box", "pass"), "crates": ("Box", None)}
TABLES = {"0001": "usershop_parcel", "0002": "usershop_box", "0003": "a_table_of_crates"}


@dataclass
class Made:
    app: UsersApp
    texts: dict[str, str] = field(default_factory=dict)
    models: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, django_db_setup: None, django_db_blocker: Any
) -> Iterator[Made]:
    """An app of which the models were renamed, then the table of one."""
    always = pytest.MonkeyPatch()
    always.setattr(InteractiveMigrationQuestioner, "ask_rename_model", lambda *_: True)
    with users_app(tmp_path_factory.mktemp("renamed")) as app, django_db_blocker.unblock():
        found = Made(app)
        for number, (name, (model, meta)) in enumerate(STEPS.items(), 1):
            meta = meta or f'db_table = "{TABLES["0003"]}"'
            module = app.write(MODELS.format(model, meta))
            found.texts[name] = app.make_migration(name)
            found.models[f"000{number}"] = getattr(module, model)
        app.extend_migration("boxes", MOVE_PAUSES)
        always.undo()
        yield found


@pytest.mark.parametrize("step", ["boxes", "crates"])
def test_what_not_every_engine_has_is_never_renamed(made: Made, step: str) -> None:
    text = made.texts[step]
    assert text.count("migrations.RemoveIndex") == text.count("partial_only=True") > 0
    assert text.count("migrations.RenameIndex") == (6 if step == "boxes" else 3)


@pytest.mark.django_db(databases="__all__")
def test_nothing_is_left_to_migrate_then(made: Made) -> None:
    call_command("makemigrations", "usershop", check=True, dry_run=True, verbosity=0)


def test_the_queue_keeps_its_jobs_and_what_protects_them(using: str, made: Made) -> None:
    try:
        migrate(using, "0001")
        expected = structure(using, made, "0001")
        job = made.models["0001"](shop="Graz")
        made.models["0001"].rows(using).bulk_create([job])
        for number in ("0002", "0003", "0002", "0001", "0003"):
            migrate(using, number)
            assert TABLES[number] in tables(using)
            assert structure(using, made, number) == expected
            assert_protected(using, made.models[number], job)
    finally:
        migrate(using, "zero")
    assert not set(TABLES.values()) & tables(using)


def test_a_pause_follows_its_queue_where_the_migration_says_so(using: str, made: Made) -> None:
    pauses = Pause.objects.using(using)
    try:
        migrate(using, "0001")
        pauses.create(queue="usershop.parcel", reason="wrong labels")
        pauses.create(queue="usershop.parcelfree")
        migrate(using, "0002")
        labels = {"usershop.box", "usershop.parcelfree"}
        assert set(pauses.values_list("queue", flat=True)) == labels
        (left,) = check_pauses([using])
        assert "'usershop.parcelfree'" in str(left.hint)
        migrate(using, "0001")
        assert pauses.filter(queue="usershop.parcel").exists()
    finally:
        migrate(using, "zero")
        pauses.all().delete()


def structure(using: str, made: Made, number: str) -> list[tuple[str, ...]]:
    """Return what the table has of what its model asks for: each by its columns and kinds."""
    model = made.models[number]
    found = constraints(using, model._meta.db_table)
    wanted = {index.name for index in model._meta.indexes if is_made(using, index)}
    wanted |= {constraint.name for constraint in model._meta.constraints}
    assert wanted <= set(found)
    ours = [name for name in found if name.endswith("_sti") or name.startswith("usershop")]
    others = ("_pkey", "_not_null")  # PostgreSQL's own, which keep their names
    assert {name for name in ours if not name.endswith(others)} <= wanted
    return sorted(
        (*map(str, about["columns"] or ()), f"{about['unique']} {about['check']}")
        for name, about in found.items()
        if name in wanted
    )


def is_made(using: str, index: Any) -> bool:
    return not index.partial_only or connections[using].features.supports_partial_indexes


def assert_protected(using: str, model: Any, job: Any) -> None:
    rows = model.rows(using)
    assert rows.get().lane == job.lane
    for wrong in ({"status": "WEIRD"}, {"status": "PROCESSING"}):
        with pytest.raises(IntegrityError), transaction.atomic(using=using):
            rows.update(**wrong)
    with pytest.raises(IntegrityError), transaction.atomic(using=using):
        rows.bulk_create([model(shop="Graz"), model(shop="Linz")])
        rows.update(waiting_key="one")
