"""This library, used as any Django project uses it."""

from .celery import app as app
