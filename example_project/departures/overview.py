"""Counts for the start page. Reads only."""

from typing import Any

from django.db.models import Count, Model, Q

from example_project.departures.airports import STREAMS
from example_project.departures.models import AircraftLeg, Departure, LandingFeeInvoice
from jaiminho_celery.models import Event


def collect() -> dict[str, Any]:
    """What the start page shows."""
    return {
        "accepted": Departure.objects.count(),
        "streams": streams(),
        "queues": [(q._meta.verbose_name, by_status(q)) for q in (AircraftLeg, LandingFeeInvoice)],
        "most_delayed": Departure.objects.order_by("-dep_delay_min")[:5],
    }


def streams() -> list[dict[str, Any]]:
    """Waiting and sent messages of each airport's stream, as far as their rows are still there."""
    rows = (
        Event.objects.filter(stream__in=STREAMS)
        .values("stream")
        .annotate(
            waiting=Count("pk", filter=Q(sent_at=None)),
            sent=Count("pk", filter=Q(sent_at__isnull=False)),
        )
    )
    return list(rows.order_by("stream"))


def by_status(job_class: type[Model]) -> dict[str, int]:
    """How many jobs of this queue are in which status."""
    counted = job_class._default_manager.order_by("status").values_list("status")
    return dict(counted.annotate(Count("pk")))
