"""The example: departures of New York's airports, with both apps at work."""

from example_project.celery import app as celery_app

__all__ = ["celery_app"]
