"""Django settings: the library's defaults, and what --set changes."""

import json
import os

from benchmarks.drivers.environment import CONFIG_VARIABLE, django_settings

globals().update(
    django_settings(
        "parviraptor_celery",
        "jaiminho_celery",
        JAIMINHO_CONFIG=json.loads(os.environ.get(CONFIG_VARIABLE, "{}")),
        CELERY_DB_REUSE_MAX=10_000,
    )
)
