from __future__ import annotations

from benchmarks.drivers.django_driver import DjangoDriver, Send


class DjangoCeleryOutbox(DjangoDriver):
    settings = "benchmarks.drivers.django_celery_outbox.settings"
    packages = ("django-celery-outbox", "Django", "celery", "kombu", "redis", "amqp", "psycopg")

    def sender(self, kind: str) -> Send:
        from benchmarks.drivers.django_celery_outbox.celery import nothing

        send: Send = nothing.delay
        return send


if __name__ == "__main__":
    DjangoCeleryOutbox().main()
