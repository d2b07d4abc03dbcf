"""Django settings of the tests. Without a test run (manage.py, mypy) there is only SQLite."""

from __future__ import annotations

import os
from typing import Any

import dj_database_url

from tests import servers

SECRET_KEY = "only the tests use this key"
DEBUG = False
ALLOWED_HOSTS = ["testserver", "127.0.0.1", "localhost"]
USE_TZ = True
CELERY_DB_REUSE_MAX = 1000
TIME_ZONE = "UTC"
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
    "django_celery_beat",
    "parviraptor_celery",
    "jaiminho_celery",
    "tests.testapp",
]

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
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
            ],
        },
    },
]

MIGRATION_MODULES = {"testapp": None}

# Two runs on one named server must not drop each other's database.
TEST_DATABASE = f"test_jaiminho_parviraptor_{os.getpid()}"


def _database(name: str, **options: Any) -> dict[str, Any]:
    """Return the alias for a server that was found, as a dict of one or none."""
    server = servers.known().get(name)
    if server is None or not server.url:
        return {}
    parsed: dict[str, Any] = {**dj_database_url.parse(server.url)}
    parsed["OPTIONS"] = {**parsed.get("OPTIONS", {}), **options}
    return {name: {**parsed, "TEST": {"NAME": TEST_DATABASE, "DEPENDENCIES": []}}}


DATABASES = {
    # A file even in tests: threads can't share a database in memory.
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
        "TEST": {"NAME": str(servers.directory() / f"{TEST_DATABASE}.sqlite3")},
    },
    **_database("postgresql"),
    **_database("mariadb", isolation_level="read committed", charset="utf8mb4"),
}
