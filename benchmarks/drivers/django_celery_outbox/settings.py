"""Its defaults, without what would only slow it down here: debug messages, and metrics by UDP."""

import logging

import structlog

from benchmarks.drivers.environment import django_settings

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

globals().update(
    django_settings(
        "django_celery_outbox",
        CELERY_OUTBOX_APP="benchmarks.drivers.django_celery_outbox.celery.app",
        MONITORING_METRICS_ENABLED=False,
    )
)
