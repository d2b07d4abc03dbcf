"""Looks at the tables all the time: no lane may ever have two rows that are being processed."""

from __future__ import annotations

import threading

from django.db import Error, connection
from django.db.models import Count

from tests.soak.project import models

ORDERED = (models.LaneJob, models.AtomicJob, models.NewJob)
PAUSE_SECONDS = 0.05


class Sampler:
    """A thread that goes on looking until ``stop()``."""

    def __init__(self) -> None:
        self.samples = 0
        self.crowded: list[str] = []
        """Lanes that had more than one, in words."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, name="sampler")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopped.wait(PAUSE_SECONDS):
            try:
                for queue in ORDERED:
                    self._look_at(queue)
            except Error:
                connection.close()
        connection.close()

    def _look_at(self, queue: type[models.LaneJob]) -> None:
        processing = queue.objects.filter(status="PROCESSING").values("shop")
        crowded = processing.annotate(rows=Count("pk")).filter(rows__gt=1)
        self.samples += 1
        for lane in crowded:
            self.crowded.append(f"{queue.__name__} {lane['shop']}: {lane['rows']} rows at once")
