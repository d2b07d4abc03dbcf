"""The tests' settings, on the databases that a running test owns.

`E2E_DATABASES` maps aliases to names of databases, the first is the default one; `E2E_SETTINGS`
holds settings to add, of a dictionary the keys. Both are
JSON.
"""

from __future__ import annotations

import json
import os
from typing import Any

from tests.settings import *  # noqa: F403 - these are settings
from tests.settings import DATABASES as EVERY_DATABASE

_names: dict[str, str] = json.loads(os.environ["E2E_DATABASES"])
DATABASES: dict[str, Any] = {
    alias: {**EVERY_DATABASE[alias], "NAME": name} for alias, name in _names.items()
}
DATABASES.setdefault("default", next(iter(DATABASES.values())))

PARVIRAPTOR_CONFIG: dict[str, Any] = {
    "DATABASES": list(_names),
    "LEASE_SECONDS": 3,
    "DISPATCH_INTERVAL_SECONDS": 1,
}
JAIMINHO_CONFIG: dict[str, Any] = {"DATABASES": list(_names)}

CELERY_BROKER_URL = os.environ["CELERY_BROKER_URL"]
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_DEFAULT_QUEUE = os.environ["E2E_QUEUE"]
CELERY_WORKER_PREFETCH_MULTIPLIER = 1

for _name, _value in json.loads(os.environ.get("E2E_SETTINGS", "{}")).items():
    _before = globals().get(_name)
    globals()[_name] = {**_before, **_value} if isinstance(_before, dict) else _value
