"""A small project in two versions of its code, as they are side by side during a deploy."""

from tests.soak.project.celery import app as celery_app

__all__ = ["celery_app"]
