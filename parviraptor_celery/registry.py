"""The queues of a project: every concrete model that derives from a job base class."""

from __future__ import annotations

from collections.abc import Iterable

from django.apps import apps
from django.db import router

from .conf import settings
from .exceptions import UnknownQueue
from .models import AbstractJob


def all_queues() -> list[type[AbstractJob]]:
    """Return the job classes of all installed apps, ordered by label."""
    found = [model for model in apps.get_models() if issubclass(model, AbstractJob)]
    return sorted(found, key=lambda model: model._meta.label)


def get_queue(label: str) -> type[AbstractJob]:
    """Return the job class with this label, for example ``"shop.ExportJob"`` (case ignored).

    A name is only ever compared with what Django has registered; nothing is imported.

    Raises:
        UnknownQueue: no such queue in this process.
    """
    wanted = str(label).lower()
    queues = all_queues()
    for queue in queues:
        if queue._meta.label_lower == wanted:
            return queue
    raise UnknownQueue(label, [queue._meta.label for queue in queues])


def aliases_of(queue: type[AbstractJob]) -> list[str]:
    """Return the databases in which rows of ``queue`` are looked for.

    ``PARVIRAPTOR_CONFIG["DATABASES"]`` names them; otherwise it is where the router writes.
    """
    named: Iterable[str] | None = settings.DATABASES
    candidates = list(named) if named is not None else [router.db_for_write(queue)]
    return [alias for alias in candidates if router.allow_migrate_model(alias, queue)]
