"""The rig of the crash enumeration: what it lets happen does happen, and it skips nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

import pytest
from django.db import transaction

from tests.faults.crashes import Path, World, enumerate_crashes, faults_of
from tests.faults.forks import Fault, Taken, Way, in_a_child
from tests.testapp.models import Note

ON_SERVERS = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)


class Notes(World):
    """A world in which a note is written."""

    def tidy(self) -> None:
        Note.objects.using(self.using).all().delete()

    def work(self) -> None:
        """Nobody recovers anything."""

    def is_open(self) -> bool:
        return False

    def problems(self, *_: Any) -> Iterator[str]:
        if not Note.objects.using(self.using).exists():
            yield "no note"


def write(world: Any) -> None:
    with transaction.atomic(using=world.using):
        Note.objects.using(world.using).create(text="a")


def fault_at_commit(using: str, folder: File, way: Way) -> Fault:
    """Return the fault that befalls the COMMIT of ``write()``."""
    steps = in_a_child(
        using, folder / "unharmed", lambda _: write(Notes(using, folder)), None
    ).steps
    Note.objects.using(using).all().delete()
    return Fault(1 + [step.name for step in steps].index("COMMIT"), way)


@pytest.mark.parametrize(
    ("way", "notes"), [(Way.BEFORE, 0), (Way.AFTER, 1), (Way.LOST, 1)], ids=lambda value: str(value)
)
def test_what_a_dead_process_had_not_committed_is_undone_and_its_locks_are_gone(
    using: str, tmp_path: File, way: Way, notes: int
) -> None:
    if way is Way.LOST and using == "default":
        assert list(faults_of([Taken("COMMIT", "commit", True)], "sqlite"))[-1].way is not Way.LOST
        return
    fault = fault_at_commit(using, tmp_path, way)
    child = in_a_child(using, tmp_path / "case", lambda _: write(Notes(using, tmp_path)), fault)
    assert child.was_killed == (way is not Way.LOST)
    assert Note.objects.using(using).count() == notes
    assert bool(child.error) == (way is Way.LOST)
    write(Notes(using, tmp_path))


@ON_SERVERS
def test_a_lost_answer_comes_up_as_the_error_of_the_driver(using: str, tmp_path: File) -> None:
    fault = fault_at_commit(using, tmp_path, Way.LOST)
    child = in_a_child(using, tmp_path / "case", lambda _: write(Notes(using, tmp_path)), fault)
    assert child.error.startswith("OperationalError: ")


@pytest.mark.django_db(transaction=True)
def test_a_path_that_has_lost_steps_fails(tmp_path: File) -> None:
    path = Path("short", lambda _: None, write, least=4)
    with pytest.raises(AssertionError, match="short has fewer steps than 4"):
        enumerate_crashes(path, Notes("default", tmp_path))


@pytest.mark.django_db(transaction=True)
def test_every_death_that_breaks_a_promise_is_told_with_its_step(tmp_path: File) -> None:
    path = Path("write", lambda _: None, write, least=3)
    with pytest.raises(AssertionError) as failed:
        enumerate_crashes(path, Notes("default", tmp_path))
    told = [line for line in str(failed.value).splitlines() if line.startswith("killed")]
    assert [line.split(":")[0] for line in told] == [f"killed before step {n}" for n in (1, 2, 3)]
    assert "COMMIT" in told[-1]
