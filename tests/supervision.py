"""The demo's tools for processes and private servers, without the rest of the example.

Importing them as `example_project.demo` would, on the way, run `example_project/__init__.py`: that
creates the example's Celery application and chooses its settings, both wrong here.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

PACKAGE = "_example_demo"
DEMO = Path(__file__).resolve().parent.parent / "example_project" / "demo"


def _load_package() -> None:
    spec = importlib.util.spec_from_file_location(
        PACKAGE, DEMO / "__init__.py", submodule_search_locations=[str(DEMO)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{DEMO} is not a Python package")
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)


if TYPE_CHECKING:
    from example_project.demo import embedded as embedded
    from example_project.demo import processes as processes
else:
    if PACKAGE not in sys.modules:
        _load_package()
    embedded = importlib.import_module(f"{PACKAGE}.embedded")
    processes = importlib.import_module(f"{PACKAGE}.processes")
