"""django-celery-outbox: an OutboxCelery too, with a relay process of its own."""
