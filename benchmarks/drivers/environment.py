"""What the runner tells a driver through environment variables, and the Django settings of all."""

from __future__ import annotations

import os
from typing import Any

from psycopg.conninfo import conninfo_to_dict

DATABASE_VARIABLE = "BENCHMARKS_DATABASE"
BROKER_VARIABLE = "BENCHMARKS_BROKER"
QUEUE_VARIABLE = "BENCHMARKS_QUEUE"
CONFIG_VARIABLE = "BENCHMARKS_JAIMINHO_CONFIG"
LEDGER_VARIABLE = "BENCHMARKS_LEDGER"

TASK = "benchmarks.nothing"


def broker() -> str:
    return os.environ.get(BROKER_VARIABLE, "memory://")


def celery_settings() -> dict[str, Any]:
    """Return the configuration of every peer's Celery app.

    What a library sends for purposes of its own goes to a second queue, so that the first one
    holds the measured messages and nothing else.
    """
    queue = os.environ.get(QUEUE_VARIABLE, "benchmarks")
    return {
        "task_default_queue": queue,
        "task_ignore_result": True,
        "task_routes": {"jaiminho_celery.*": {"queue": f"{queue}-kicks"}},
    }


def worker_settings() -> dict[str, Any]:
    """Return the configuration of a Celery app whose workers are measured."""
    return {
        **celery_settings(),
        "broker_connection_retry_on_startup": True,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
    }


def django_settings(*apps: str, **more: Any) -> dict[str, Any]:
    """Return the settings of a Django peer: its own apps beside the shop, one PostgreSQL."""
    return {
        "SECRET_KEY": "it guards nothing but benchmarks",
        "USE_TZ": True,
        "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
        "INSTALLED_APPS": ["django.contrib.contenttypes", *apps, "benchmarks.drivers.shop"],
        "DATABASES": {"default": _database(os.environ.get(DATABASE_VARIABLE, ""))},
        "LOGGING": {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"console": {"class": "logging.StreamHandler"}},
            "root": {"level": "WARNING", "handlers": ["console"]},
        },
        **more,
    }


def _database(conninfo: str) -> dict[str, Any]:
    parts = conninfo_to_dict(conninfo)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.get("dbname", "postgres"),
        "USER": parts.get("user", ""),
        "PASSWORD": parts.get("password", ""),
        "HOST": parts.get("host", ""),
        "PORT": parts.get("port", ""),
        "CONN_MAX_AGE": 600,
    }
