"""What can be known to be wrong with the rows: ``check --database`` asks, and ``migrate``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register

from . import pauses, registry


@register(Tags.database)
def check_pauses(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Look for pauses of queues that don't exist: one was renamed, and its jobs run."""
    known = {queue._meta.label_lower for queue in registry.all_queues()}
    return [
        Warning(
            f"The database {using!r} has a pause of {label}, which is not a job queue here: it "
            "holds no job.",
            hint="If the queue was renamed, let the pause follow: Pause.objects"
            f".using({using!r}).filter(queue={label!r}).update(queue=…), with the new label in "
            "lower case. Else delete it.",
            id="parviraptor_celery.W301",
        )
        for using in databases or ()
        for label in pauses.paused_queues(using)
        if label not in known
    ]
