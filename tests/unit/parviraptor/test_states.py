"""The states of a job: which may follow which, and what the database enforces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from parviraptor_celery.exceptions import IllegalTransition
from parviraptor_celery.models import AbstractJob
from parviraptor_celery.states import CLAIMABLE, TRANSITIONS, JobStatus
from tests.testapp.models import FifoJob, FreeJob
from tests.unit.jobs import reloaded

FINAL = (JobStatus.PROCESSED, JobStatus.SQUASHED, JobStatus.IGNORED)
RESTING = [status for status in JobStatus if status != JobStatus.PROCESSING]


def test_the_states_are_those_that_were_promised() -> None:
    promised = ["NEW", "PROCESSING", "PROCESSED", "SQUASHED", "FAILED", "IGNORED", "DEFERRED"]
    assert sorted(FreeJob.Status.values) == sorted(promised)


def test_every_state_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(JobStatus)


@pytest.mark.parametrize("status", FINAL)
def test_nothing_follows_a_final_state(status: JobStatus) -> None:
    assert TRANSITIONS[status] == frozenset()


def test_only_waiting_states_are_claimed() -> None:
    claimed = {state for state, after in TRANSITIONS.items() if JobStatus.PROCESSING in after}
    assert claimed == set(CLAIMABLE) == {JobStatus.NEW, JobStatus.DEFERRED}


def illegal() -> Iterator[tuple[JobStatus, JobStatus]]:
    for before in JobStatus:
        yield from ((before, after) for after in JobStatus if after not in TRANSITIONS[before])


@pytest.mark.parametrize(("before", "after"), list(illegal()))
def test_a_transition_outside_the_table_is_refused_without_a_query(
    before: JobStatus, after: JobStatus
) -> None:
    job = FreeJob(pk=1, status=before)  # a query would fail: this test has no database
    with pytest.raises(IllegalTransition, match=f"{before}.*{after}"):
        job.move(after)
    assert job.status == before


@pytest.mark.django_db
@pytest.mark.parametrize("queue", [FreeJob, FifoJob])
@pytest.mark.parametrize("status", RESTING)
def test_a_row_may_be_inserted_in_any_resting_status(
    queue: type[AbstractJob], status: JobStatus
) -> None:
    job = queue.objects.create(status=status)
    assert reloaded(job).status == status


@pytest.mark.django_db
@pytest.mark.parametrize(
    "columns",
    [
        pytest.param({"status": "BOGUS"}, id="an unknown status"),
        pytest.param({"status": "PROCESSING"}, id="running without a lease"),
        pytest.param({"status": "NEW", "lease_until": timezone.now()}, id="a lease at rest"),
        pytest.param({"status": "FAILED", "running_lane": "a"}, id="a lane held at rest"),
    ],
)
def test_the_database_refuses_what_can_not_be(columns: dict[str, object]) -> None:
    FreeJob.objects.create()
    with pytest.raises(IntegrityError), transaction.atomic():
        FreeJob.objects.update(**columns)
    assert FreeJob.objects.filter(status="NEW", lease_until=None, running_lane=None).exists()


@pytest.mark.django_db
def test_the_database_refuses_a_second_running_job_of_a_lane() -> None:
    first, second = FifoJob.enqueue(), FifoJob.enqueue()
    assert first.claim()
    with pytest.raises(IntegrityError), transaction.atomic():
        second.claim()
    assert reloaded(second).status == JobStatus.NEW
