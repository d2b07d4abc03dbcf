"""Frauds on purpose: a self-test of the ledger, which must notice each of them."""

from collections.abc import Callable

from django.db import transaction
from django.db.models import Count, Max

from example_project.departures.airports import STREAMS
from example_project.departures.models import AircraftLeg
from jaiminho_celery.models import Event

from .accidents import Sabotage


class DropEvent:
    """Deletes one message from the outbox while the board is down: it is lost."""

    accident = "board"
    begin_at = 0.3

    def commit(self) -> bool:
        # The latest one: no relay has it in its hands.
        event = Event.objects.filter(stream__in=STREAMS, sent_at=None).order_by("-pk").first()
        return event is not None and event.delete()[0] == 1


class SwapLegs:
    """Flies an aircraft's later leg while an earlier one waits, past the fence of its lane."""

    accident = "worker"
    begin_at = 0.1

    @transaction.atomic
    def commit(self) -> bool:
        waiting = AircraftLeg.objects.filter(status=AircraftLeg.Status.NEW)
        lanes = waiting.values("tailnum").annotate(legs=Count("pk"), last=Max("pk"))
        lane = lanes.filter(legs__gte=2).order_by("last").first()
        if lane is None:
            return False
        leg = waiting.get(pk=lane["last"])
        leg.process()
        return self._finish(leg) == 1

    @staticmethod
    def _finish(leg: AircraftLeg) -> int:
        claimable = AircraftLeg.objects.filter(pk=leg.pk, status=AircraftLeg.Status.NEW)
        return claimable.update(status=AircraftLeg.Status.PROCESSED, leg_number=leg.leg_number)


SABOTAGE: dict[str, Callable[[], Sabotage]] = {"drop-event": DropEvent, "swap-legs": SwapLegs}
