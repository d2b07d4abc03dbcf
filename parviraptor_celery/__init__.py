"""Job queues whose rows are the user's own Django models, worked off by Celery."""
