"""django-jaiminho with keep-order: a decorated function, which sends with plain Celery."""
