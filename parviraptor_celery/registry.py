"""The queues of a project: every concrete model that derives from a job base class."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django.apps import apps
from django.db import connections, router

from .aliases import aliases_holding
from .conf import settings
from .database import tells_no_value
from .exceptions import UnknownQueue
from .models import AbstractJob

logger = logging.getLogger("parviraptor_celery")


def all_queues() -> list[type[AbstractJob]]:
    """Return the job classes of all installed apps, ordered by label."""
    models = (model for model in apps.get_models() if not model._meta.proxy)
    found = [model for model in models if issubclass(model, AbstractJob)]
    return sorted(found, key=lambda model: model._meta.label)


def all_proxies() -> list[type[AbstractJob]]:
    """Return the proxies of queues: their jobs are jobs of the queue itself."""
    models = (model for model in apps.get_models() if model._meta.proxy)
    return [model for model in models if issubclass(model, AbstractJob)]


def get_queue(label: object) -> type[AbstractJob]:
    """Return the job class with this label, for example ``"shop.ExportJob"`` (case ignored).

    A name is only ever compared with what Django has registered; nothing is imported.

    Raises:
        UnknownQueue: no such queue in this process.
    """
    if (known := _at_once(label)) is not None:
        return known
    wanted = label.lower() if isinstance(label, str) else None
    queues = all_queues()
    for queue in queues:
        if queue._meta.label_lower == wanted:
            return queue
    raise UnknownQueue(label, [queue._meta.label for queue in queues])


def _at_once(label: object) -> Any:
    """Return the job class with just this label, which every kick asks for, or None."""
    try:
        model = apps.get_model(label) if isinstance(label, str) else None
    except (LookupError, ValueError):
        return None
    is_queue = model is not None and issubclass(model, AbstractJob) and not model._meta.proxy
    return model if is_queue else None


def for_each_queue(
    body: Callable[[type[AbstractJob], str], Any], queues: list[type[AbstractJob]] | None = None
) -> list[str]:
    """Call ``body`` with each queue (of ``queues``, or of all) and each of its databases.

    One that fails doesn't keep the others waiting: during a deploy a table may be missing yet,
    and one of several databases may be away. Returns what was left out.
    """
    left_out = []
    for queue in all_queues() if queues is None else queues:
        for using in aliases_of(queue):
            try:
                body(queue, using)
            except Exception as error:  # also of a user's field that can't read a row
                logger.error(
                    "%s in %s was left out (%s)",
                    *(queue._meta.label, using, type(error).__name__),
                    exc_info=tells_no_value(error),
                )
                connections[using].close_if_unusable_or_obsolete()
                left_out.append(f"{queue._meta.label} in {using}")
    return left_out


def aliases_of(queue: type[AbstractJob]) -> list[str]:
    """Return the databases in which rows of ``queue`` are looked for.

    ``PARVIRAPTOR_CONFIG["DATABASES"]`` names them; otherwise it is where the router writes, and
    every other database that has its table.
    """
    if settings.DATABASES is not None:
        return [name for name in settings.DATABASES if router.allow_migrate_model(name, queue)]
    return aliases_holding(queue, [router.db_for_write(queue)])
