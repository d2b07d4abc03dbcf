"""Frauds on purpose: a self-test of the verdict, which has to notice each of them."""

from __future__ import annotations

from django.db import transaction

from tests.faults.ledger import Ledger
from tests.soak.project import models

TWICE, LOST = "lane-twice", "lane-lost"


class Sabotage:
    """Two jobs of a lane: the first runs twice at once, the second is deleted while it waits."""

    def __init__(self, ledger: Ledger) -> None:
        for item in (TWICE, LOST):
            ledger.note("intended", item)
            with transaction.atomic():
                models.Fact.objects.create(item=item, kind="lane")
                models.LaneJob.enqueue(
                    item=item, shop="sabotaged", takes=models.UNTIL_IT_RUNS_TWICE
                )
            ledger.note("committed", item)
        self.is_done = False

    def advance(self) -> None:
        """Strike once the first one runs: behind the library's back, without a word."""
        if self.is_done:
            return
        running = models.LaneJob.objects.filter(item=TWICE, status="PROCESSING")
        if running.update(status="NEW", running_lane=None, lease_until=None):
            models.LaneJob.objects.filter(item=LOST).delete()
            self.is_done = True
