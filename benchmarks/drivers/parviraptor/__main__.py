from __future__ import annotations

from benchmarks.drivers.django_driver import DjangoDriver
from benchmarks.drivers.queue_driver import QueueDriver

CHUNK = 5000


class Parviraptor(DjangoDriver, QueueDriver):
    settings = "benchmarks.drivers.parviraptor.settings"
    packages = ("parviraptor", "Django", "psycopg")

    def enqueue_all(self, jobs: list[tuple[int, int]], is_laned: bool) -> None:
        from benchmarks.drivers.parviraptor.models import Independent, Laned

        if is_laned:
            laned = [Laned(number=number, shop=lane) for number, lane in jobs]
            Laned.objects.bulk_create(laned, batch_size=CHUNK)
        else:
            independent = [Independent(number=number) for number, _ in jobs]
            Independent.objects.bulk_create(independent, batch_size=CHUNK)


if __name__ == "__main__":
    Parviraptor().main()
