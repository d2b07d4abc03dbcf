"""Which dead letters a person means: conditions, and what is refused as unclear."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypedDict
from uuid import UUID

from django.conf import settings as django_settings

from parviraptor_celery.admin_tools import LARGEST_ID

from . import registry
from .exceptions import BadSelection, UnknownAlias
from .querysets import EventQuerySet

TEXTS = ("stream", "key", "name", "fingerprint")
LOOKUPS = {
    "ids": "pk__in",
    "uuids": "uuid__in",
    "since": "modified_at__gte",
    "until": "modified_at__lte",
}


class Selection(TypedDict, total=False):
    """Which dead letters are meant: those that meet every condition given.

    ``None`` is no condition; ``stream=""`` and ``key=""`` mean the events without one.
    """

    using: str | None
    """The database; None: every one of the outbox."""

    stream: str | None
    key: str | None
    name: str | None
    """The registered name of the function."""

    fingerprint: str | None
    ids: Iterable[int] | None
    uuids: Iterable[UUID | str] | None
    since: datetime | None
    """Dead since this moment or later."""

    until: datetime | None
    """Dead at this moment or earlier."""

    everything: bool
    """No condition is meant: all dead letters (of ``using``)."""


def checked(selection: Selection, *, empty_is_all: bool = False) -> dict[str, Any]:
    """Return the conditions of ``selection``, ready for ``selected()``.

    Raises:
        BadSelection: there are none and no ``everything=True``, or one is unclear.
        UnknownAlias: ``using`` names a database that DATABASES lacks.
    """
    _require_known_names(selection)
    given: dict[str, Any] = {name: it for name, it in selection.items() if it is not None}
    everything, using = given.pop("everything", False), given.get("using")
    _require_one_meaning(given.keys() - {"using"}, everything or empty_is_all, everything)
    if using is not None and using not in django_settings.DATABASES:
        known = ", ".join(map(repr, django_settings.DATABASES))
        raise UnknownAlias(f"There is no database {using!r}. DATABASES has: {known}.")
    if "ids" in given:
        _require_one_database(using)
        given["ids"] = [pk for pk in _listed(given, "ids") if _is_storable(pk)]
    if "uuids" in given:
        given["uuids"] = [_uuid(value) for value in _listed(given, "uuids")]
    return given


def selected(rows: EventQuerySet, given: Mapping[str, Any]) -> EventQuerySet:
    """Return those of ``rows`` that meet the conditions that ``checked()`` returned."""
    rows = rows.equal_to(**{name: str(given[name]) for name in TEXTS if name in given})
    for name, lookup in LOOKUPS.items():
        if name in given:
            rows = rows.filter(**{lookup: given[name]})
    return rows


def _require_known_names(selection: Selection) -> None:
    unknown = sorted(selection.keys() - Selection.__annotations__.keys())
    if unknown:
        known = ", ".join(Selection.__annotations__)
        raise TypeError(f"There is no condition {', '.join(unknown)}. Known: {known}.")


def _require_one_meaning(conditions: set[str], empty_is_all: bool, everything: bool) -> None:
    if everything and conditions:
        raise BadSelection(
            f"everything=True and {', '.join(sorted(conditions))} exclude each other: "
            "leave one out."
        )
    if not (conditions or empty_is_all):
        raise BadSelection(
            "Nothing says which dead letters are meant. Give a condition (stream, key, name, "
            "fingerprint, ids, uuids, since, until), or everything=True for all of them."
        )


def _require_one_database(using: str | None) -> None:
    if using is not None or len(aliases := registry.known_aliases()) == 1:
        return
    raise BadSelection(
        "An id is that of one database, and the outbox is in several "
        f"({', '.join(map(repr, aliases))}). Say which one with using, or give uuids."
    )


def _listed(given: Mapping[str, Any], name: str) -> list[Any]:
    if isinstance(given[name], str | bytes):
        raise BadSelection(f"{name} must be a list, not the text {given[name]!r}.")
    return list(given[name])


def _is_storable(pk: Any) -> bool:
    """Return whether there could be such an id: SQLite refuses to look for a larger one."""
    return not isinstance(pk, int) or abs(pk) <= LARGEST_ID


def _uuid(value: UUID | str) -> UUID:
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except ValueError:
        raise BadSelection(f"{value!r} is not a UUID.") from None
