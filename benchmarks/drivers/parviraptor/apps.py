from __future__ import annotations

from django.apps import AppConfig


class ParviraptorQueue(AppConfig):
    name = "benchmarks.drivers.parviraptor"
    label = "parviraptor_queue"
