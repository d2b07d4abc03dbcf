"""Settings of the example. Every one that differs between machines comes from the environment.

| variable | default |
|---|---|
| `DATABASE_URL` | an SQLite file in `EXAMPLE_DIR` |
| `CELERY_BROKER_URL` | `redis://127.0.0.1:6379/0` |
| `EXAMPLE_DIR` | `example_project/var/` |
| `EXAMPLE_QUEUE` | `celery`: the Celery queue |
| `EXAMPLE_KEY_PREFIX` | none: a prefix of all keys, on a Redis that is shared |
| `EXAMPLE_LEASE_SECONDS`, `EXAMPLE_TICK_SECONDS` | the libraries' own defaults |
| `EXAMPLE_TASK_EVENTS` | `1`: the worker tells Flower about its tasks; `0` saves that |
| `BOARD_URL`, `PRICING_URL` | `http://127.0.0.1:8001`, `http://127.0.0.1:8002` |
| `SECRET_KEY`, `DEBUG`, `ALLOWED_HOSTS` | for your own machine only |
"""

import os
from pathlib import Path
from typing import Any

import dj_database_url

PROJECT_DIR = Path(__file__).resolve().parent
EXAMPLE_DIR = Path(os.environ.get("EXAMPLE_DIR") or PROJECT_DIR / "var")

# Insecure, and the same on every machine: fine to try the example, never to serve it.
SECRET_KEY = os.environ.get("SECRET_KEY", "insecure-and-for-development-only")
DEBUG = os.environ.get("DEBUG", "0") == "1"
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "127.0.0.1,localhost").split(",")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_celery_beat",
    "parviraptor_celery",
    "jaiminho_celery",
    "example_project.departures",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# The departures' times are New York's; the database keeps them in UTC.
USE_TZ = True
TIME_ZONE = "America/New_York"
LANGUAGE_CODE = "en-us"


def _database() -> dict[str, Any]:
    """The default database: the one that DATABASE_URL names, else an SQLite file."""
    url = os.environ.get("DATABASE_URL")
    if not url:
        EXAMPLE_DIR.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{EXAMPLE_DIR / 'example.sqlite3'}"
    database: dict[str, Any] = dict(dj_database_url.parse(url, conn_max_age=600))
    if database["ENGINE"] == "django.db.backends.sqlite3":
        # IMMEDIATE takes the write lock at BEGIN, where SQLite waits for its turn. A transaction
        # that reads first and writes later would fail at once with "database is locked".
        database["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        }
    return database


DATABASES = {"default": _database()}

CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL") or "redis://127.0.0.1:6379/0"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_DEFAULT_QUEUE = os.environ.get("EXAMPLE_QUEUE") or "celery"
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# What Flower shows. It costs the worker's main process about as much as the tasks themselves.
CELERY_WORKER_SEND_TASK_EVENTS = os.environ.get("EXAMPLE_TASK_EVENTS", "1") == "1"
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
# Without this name Celery closes the database connection before and after every task, whatever
# CONN_MAX_AGE says.
CELERY_DB_REUSE_MAX = 10_000


def _broker_transport_options() -> dict[str, Any]:
    """Options differ by broker: AMQP can confirm what it got, Redis can prefix its keys."""
    if CELERY_BROKER_URL.startswith(("amqp", "pyamqp")):
        return {"confirm_publish": True}
    prefix = os.environ.get("EXAMPLE_KEY_PREFIX")
    return {"global_keyprefix": prefix} if prefix else {}


CELERY_BROKER_TRANSPORT_OPTIONS = _broker_transport_options()


def _engine_config(tick_key: str) -> dict[str, Any]:
    """LEASE_SECONDS and the tick, where the environment sets them; else the defaults stand."""
    config: dict[str, Any] = {}
    if lease := os.environ.get("EXAMPLE_LEASE_SECONDS"):
        config["LEASE_SECONDS"] = float(lease)
    if tick := os.environ.get("EXAMPLE_TICK_SECONDS"):
        config[tick_key] = float(tick)
    return config


JAIMINHO_CONFIG = _engine_config("RELAY_INTERVAL_SECONDS")
PARVIRAPTOR_CONFIG = _engine_config("DISPATCH_INTERVAL_SECONDS")

# The two services outside: who shows the departures, and who knows what a landing costs.
BOARD_URL = os.environ.get("BOARD_URL", "http://127.0.0.1:8001")
PRICING_URL = os.environ.get("PRICING_URL", "http://127.0.0.1:8002")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": os.environ.get("LOG_LEVEL", "INFO")},
}
