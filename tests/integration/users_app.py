"""The rig for migrations: an app of a user's, whose models and migrations are files of its own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from django.apps import apps
from django.apps.config import AppConfig
from django.core.management import call_command
from django.db import connection as default_connection
from django.db import connections

APPS = """from django.apps import AppConfig


class UserShop(AppConfig):
    name = "usershop"
    default_auto_field = "django.db.models.BigAutoField"
"""


class UsersApp:
    """The installed app ``usershop``."""

    def __init__(self, root: Path) -> None:
        self.package = root / "usershop"
        (self.package / "migrations").mkdir(parents=True)
        for name in ("__init__.py", "migrations/__init__.py"):
            (self.package / name).touch()
        (self.package / "apps.py").write_text(APPS)

    def write(self, models: str) -> ModuleType:
        """Let ``models`` be its models.py, as after a deploy, and return that module."""
        (self.package / "models.py").write_text(models)
        forget()
        config = AppConfig.create("usershop.apps.UserShop")
        config.apps = apps
        apps.app_configs["usershop"] = config
        config.import_models()
        apps.clear_cache()
        return importlib.import_module("usershop.models")

    def make_migration(self, name: str) -> str:
        """Call makemigrations while SQLite is the default database; return what it wrote."""
        assert default_connection.vendor == "sqlite"
        call_command("makemigrations", "usershop", name=name, verbosity=0)
        importlib.invalidate_caches()
        return self._migration(name).read_text()

    def extend_migration(self, name: str, code: str) -> None:
        """Write ``code`` at the end of what makemigrations wrote."""
        path = self._migration(name)
        path.write_text(f"{path.read_text()}\n{code}")
        sys.modules.pop(f"usershop.migrations.{path.stem}", None)

    def _migration(self, name: str) -> Path:
        (path,) = (self.package / "migrations").glob(f"*_{name}.py")
        return path


@contextmanager
def users_app(root: Path) -> Iterator[UsersApp]:
    sys.path.insert(0, str(root))
    try:
        yield UsersApp(root)
    finally:
        forget()
        sys.path.remove(str(root))


def forget() -> None:
    """Take the app out of Django and Python, which would give it to the next one otherwise."""
    apps.app_configs.pop("usershop", None)
    apps.all_models.pop("usershop", None)
    apps.clear_cache()
    for name in [name for name in sys.modules if name.partition(".")[0] == "usershop"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def migrate(using: str, to: str | None = None) -> None:
    arguments = [] if to is None else [to]
    call_command("migrate", "usershop", *arguments, database=using, verbosity=0)


def constraints(using: str, table: str) -> dict[str, Any]:
    """Return the indexes and constraints that ``table`` has, by name."""
    with connections[using].cursor() as cursor:
        found: dict[str, Any] = connections[using].introspection.get_constraints(cursor, table)
    return found


def tables(using: str) -> set[str]:
    with connections[using].cursor() as cursor:
        return set(connections[using].introspection.table_names(cursor))
