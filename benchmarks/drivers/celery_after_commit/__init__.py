"""Celery without an outbox: delay() in a hook. Lost if the process dies after the commit."""
