from __future__ import annotations

from benchmarks.drivers.django_driver import DjangoDriver, Send


class DjangoJaiminho(DjangoDriver):
    settings = "benchmarks.drivers.django_jaiminho.settings"
    packages = ("django-jaiminho", "Django", "celery", "kombu", "redis", "amqp", "psycopg")

    def sender(self, kind: str) -> Send:
        from benchmarks.drivers.django_jaiminho.functions import publish

        send: Send = publish
        return send


if __name__ == "__main__":
    DjangoJaiminho().main()
