"""Django settings of every process of a soak; what differs between runs is in the environment."""

from __future__ import annotations

import json
import os
from typing import Any

LEASE_SECONDS = float(os.environ.get("SOAK_LEASE", "3"))
TICK_SECONDS = 1.0
REDELIVERED_AFTER_SECONDS = 6
"""Redis: when kombu hands out again what a dead worker took."""

SECRET_KEY = "only the soak uses this key"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "parviraptor_celery",
    "jaiminho_celery",
    "tests.soak.project",
]
DATABASES: dict[str, Any] = {"default": json.loads(os.environ.get("SOAK_DATABASE", "{}"))}

JAIMINHO_CONFIG = {
    "LEASE_SECONDS": LEASE_SECONDS,
    "RELAY_INTERVAL_SECONDS": TICK_SECONDS,
    "BACKOFF_BASE_SECONDS": 0.2,
    "BACKOFF_CAP_SECONDS": 1,
    "CLEAN_INTERVAL_SECONDS": 5,
}
PARVIRAPTOR_CONFIG = {
    "LEASE_SECONDS": LEASE_SECONDS,
    "DISPATCH_INTERVAL_SECONDS": TICK_SECONDS,
    "CLEAN_INTERVAL_SECONDS": 5,
    # The injector kills without end, and no job is to blame for it.
    "MAX_WORKER_DEATHS": 1000,
    "RETRY_COUNTDOWN_CAP_SECONDS": 2,
    "BROKER_BREAKER_SECONDS": 1,
}

CELERY_BROKER_URL = os.environ.get("SOAK_BROKER_URL", "memory://")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "soak"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_DB_REUSE_MAX = 10_000
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = (
    {"confirm_publish": True}
    if CELERY_BROKER_URL.startswith("amqp")
    else {
        "visibility_timeout": REDELIVERED_AFTER_SECONDS,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 5,
    }
)
CELERY_BROKER_HEARTBEAT = 5

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"}
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
