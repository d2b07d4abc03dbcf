"""Which columns of an event are signed: none can be forgotten, and none taken from elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from jaiminho_celery.exceptions import BadEventSignature
from jaiminho_celery.models import Event
from jaiminho_celery.signing import sign, verify
from parviraptor_celery.texts import in_local_zone
from tests.faults.tampering import FREE, SIGNED


def test_every_column_of_an_event_is_signed_or_known_to_be_free() -> None:
    columns = {field.name for field in Event._meta.concrete_fields}
    assert columns == SIGNED | FREE
    assert not SIGNED & FREE


@pytest.mark.parametrize("name", sorted(SIGNED - {"signature"}))
def test_a_row_takes_the_value_of_no_other_row(name: str) -> None:
    """Copying a column from a row that was signed as well is a change like others."""
    alike: dict[str, Any] = {"strategy": "keep-order", "name": "n", "version": 1, "body": "b"}
    one, other = (
        Event(**alike, stream="s", key="k"),
        Event(strategy="publish-on-commit", name="m", version=2, body="c", stream="t", key="l"),
    )
    one.signature, other.signature = sign(one), sign(other)
    verify(one)
    setattr(one, name, getattr(other, name))
    with pytest.raises(BadEventSignature):
        verify(one)
    one.signature = other.signature
    with pytest.raises(BadEventSignature):
        verify(one)


@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Kiritimati"])
@pytest.mark.parametrize("moment", [datetime.min, datetime.max])
def test_the_edges_of_time_have_a_text_in_every_zone(
    settings: Any, zone: str, moment: datetime
) -> None:
    settings.TIME_ZONE = zone
    assert f"{in_local_zone(moment.replace(tzinfo=UTC)):%d}" in ("01", "31")
