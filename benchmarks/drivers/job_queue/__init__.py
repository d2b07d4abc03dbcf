"""This library's job queues, used as any Django project uses them."""

from .celery import app as app
