"""Lanes: which jobs share one, and that a job never changes its lane."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import transaction

from parviraptor_celery.exceptions import LaneChanged
from parviraptor_celery.lanes import lane_of
from tests.testapp.models import FifoJob, FreeJob, LaneJob, Note, TypedJob
from tests.unit.jobs import reloaded

NOON = datetime(2024, 7, 1, 12, tzinfo=UTC)
SERIAL = uuid.UUID("12345678123456781234567812345678")


def lane(**values: Any) -> str:
    return lane_of(TypedJob(**values), TypedJob.dependent_fields or [])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"amount": Decimal("1.5")}, {"amount": Decimal("1.50")}, id="scale"),
        pytest.param({"amount": Decimal("1.5")}, {"amount": "1.50"}, id="decimal as text"),
        pytest.param({"amount": Decimal("1E+2")}, {"amount": Decimal("100")}, id="exponent"),
        pytest.param({"amount": Decimal("-0.00")}, {"amount": Decimal("0.00")}, id="minus zero"),
        pytest.param({"count": 7}, {"count": "7"}, id="number as text"),
        pytest.param({"flag": True}, {"flag": 1}, id="flag as number"),
        pytest.param({"text": "7"}, {"text": 7}, id="text given as a number"),
        pytest.param(
            {"moment": NOON},
            {"moment": NOON.astimezone(ZoneInfo("America/New_York"))},
            id="time zone",
        ),
        pytest.param(
            {"moment": NOON},
            {"moment": datetime(2024, 7, 1, 14, tzinfo=timezone(timedelta(hours=2)))},
            id="offset",
        ),
        pytest.param({"moment": NOON}, {"moment": "2024-07-01T12:00:00Z"}, id="moment as text"),
        pytest.param({"day": date(2024, 7, 1)}, {"day": "2024-07-01"}, id="date as text"),
        pytest.param({"serial": SERIAL}, {"serial": str(SERIAL)}, id="UUID as text"),
        pytest.param({"note": Note(pk=3)}, {"note_id": 3}, id="object or its key"),
        pytest.param({"note_id": "3"}, {"note_id": 3}, id="key as text"),
    ],
)
def test_equal_values_share_a_lane(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert lane(**one) == lane(**other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"text": "1"}, {"count": 1}, id="the same digits in another field"),
        pytest.param({"text": None}, {"text": ""}, id="nothing and empty"),
        pytest.param({"text": None}, {"text": "None"}, id="nothing and its name"),
        pytest.param({"text": "a"}, {"text": "A"}, id="case"),
        pytest.param({"text": "a"}, {"text": "a "}, id="a trailing blank"),
        pytest.param({"text": "ä"}, {"text": "a"}, id="an accent"),
        pytest.param({"amount": Decimal("1.50")}, {"amount": Decimal("1.51")}, id="a cent"),
        pytest.param({"moment": NOON}, {"moment": NOON + timedelta(microseconds=1)}, id="1 µs"),
        pytest.param({"flag": False}, {"flag": None}, id="no and unknown"),
        pytest.param({"note_id": 3}, {"note_id": 4}, id="another object"),
    ],
)
def test_different_values_have_lanes_of_their_own(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert lane(**one) != lane(**other)


def test_a_number_and_its_digits_are_different_lanes() -> None:
    assert lane_of(TypedJob(count=1), ["count"]) != lane_of(TypedJob(text="1"), ["text"])


def test_values_do_not_run_into_each_other() -> None:
    one, other = TypedJob(text="a", serial=None), TypedJob(text='a"],["none",null', serial=None)
    assert lane_of(one, ["text", "serial"]) != lane_of(other, ["text", "serial"])


def test_a_lane_is_32_hexadecimal_digits_and_the_same_in_every_process() -> None:
    # Workers of two releases must agree, so it may never change: printf '[]' | b2sum -l 128
    assert lane_of(FifoJob(), []) == "7ebb3c7c2a87b1a2f8a7ed729ecb040d"


@pytest.mark.django_db
class TestInTheDatabase:
    def test_create_and_bulk_create_fill_the_lane_in(self) -> None:
        created = LaneJob.objects.create(shop="x", number=1)
        [in_bulk] = LaneJob.objects.bulk_create([LaneJob(shop="x", number=1)])
        rows = LaneJob.objects.filter(lane=created.lane)
        assert set(rows.values_list("pk", flat=True)) == {created.pk, in_bulk.pk}

    def test_an_independent_job_has_no_lane(self) -> None:
        assert reloaded(FreeJob.enqueue()).lane is None

    def test_a_strict_queue_has_one_lane(self) -> None:
        FifoJob.enqueue()
        FifoJob.enqueue(script="ignore me")
        assert FifoJob.objects.values("lane").distinct().count() == 1

    @pytest.mark.parametrize(
        "values",
        [
            {"amount": Decimal("1.5")},
            {"moment": NOON.astimezone(ZoneInfo("Asia/Tokyo"))},
            {"day": date(2024, 7, 1), "text": "ä\U0001f600", "count": -1},
            {"serial": SERIAL, "flag": False},
        ],
    )
    def test_a_job_that_is_read_back_can_be_saved(self, values: dict[str, Any]) -> None:
        job = TypedJob.objects.create(**values)
        reloaded(job).save()
        assert reloaded(job).lane == job.lane


@pytest.mark.django_db
class TestALaneCanNotBeChanged:
    def assert_unchanged(self, job: LaneJob) -> None:
        row = reloaded(job)
        assert (row.shop, row.lane) == ("a", job.lane)

    def test_by_save(self) -> None:
        job = LaneJob.enqueue(shop="a")
        changed = reloaded(job)
        changed.shop = "b"
        with pytest.raises(LaneChanged, match="shop, number"), transaction.atomic():
            changed.save()
        self.assert_unchanged(job)

    def test_by_save_of_that_field_alone(self) -> None:
        job = LaneJob.enqueue(shop="a")
        changed = reloaded(job)
        changed.shop = "b"
        with pytest.raises(LaneChanged), transaction.atomic():
            changed.save(update_fields=["shop"])
        self.assert_unchanged(job)

    def test_by_update_or_create(self) -> None:
        job = LaneJob.enqueue(shop="a")
        with pytest.raises(LaneChanged), transaction.atomic():
            LaneJob.objects.update_or_create(pk=job.pk, defaults={"shop": "b"})
        self.assert_unchanged(job)

    def test_by_update(self) -> None:
        job = LaneJob.enqueue(shop="a")
        with pytest.raises(LaneChanged, match="shop"):
            LaneJob.objects.filter(pk=job.pk).update(script="x", shop="b")
        self.assert_unchanged(job)

    def test_by_bulk_update(self) -> None:
        job = LaneJob.enqueue(shop="a")
        changed = reloaded(job)
        changed.shop = "b"
        with pytest.raises(LaneChanged, match="shop"):
            LaneJob.objects.bulk_update([changed], ["script", "shop"])
        self.assert_unchanged(job)

    @pytest.mark.parametrize("name", ["note", "note_id"])
    def test_by_a_foreign_key_under_either_of_its_names(self, name: str) -> None:
        first, second = (Note.objects.create(text=text) for text in "ab")
        job = TypedJob.enqueue(note=first)
        with pytest.raises(LaneChanged):
            TypedJob.objects.filter(pk=job.pk).update(**{name: second.pk})
        changed = reloaded(job)
        changed.note = second
        with pytest.raises(LaneChanged):
            TypedJob.objects.bulk_update([changed], [name])
        with pytest.raises(LaneChanged), transaction.atomic():
            changed.save(update_fields=[name])
        assert reloaded(job).note_id == first.pk

    def test_and_other_fields_can(self) -> None:
        job = LaneJob.enqueue(shop="a")
        LaneJob.objects.filter(pk=job.pk).update(script="by update")
        changed = reloaded(job)
        assert changed.script == "by update"
        changed.script = "by save"
        changed.save(update_fields=["script"])
        changed.script = "by bulk_update"
        LaneJob.objects.bulk_update([changed], ["script"])
        assert reloaded(job).script == "by bulk_update"
