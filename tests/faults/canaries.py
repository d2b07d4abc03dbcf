"""What hostile input looks like, and who must never show it: shared by `test_hostile_*.py`."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any

from django.apps import apps
from django.db import connections

PAYLOAD = "canary-in-the-payload"
"""Stands for what a customer sent: in no log line, warning or output."""

TAG, ATTRIBUTE = "canary-tag", "data-canary"
MARKUP = (
    f"</script></textarea></title>--><{TAG} {ATTRIBUTE}=1>\"'><{TAG} {ATTRIBUTE}=2>"
    "{{7*7}}{%now%}&lt;x&gt;"
)
"""Breaks out of whatever HTML it is put into without being escaped."""

ORDERS = "\x1b]0;canary\x07\x1b[2J\x9b31m\r\n\u2028\u202e"
"""What a terminal, or a reader of a log file, would obey."""

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u202e]")

LOGGERS = ("jaiminho_celery", "parviraptor_celery", "django", "celery", "py.warnings", "kombu")


class Found(HTMLParser):
    """The elements and attributes of a page, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    @property
    def from_outside(self) -> list[str]:
        """Return the elements and attributes that came from a canary, and links that run code."""
        tags = [tag for tag in self.tags if tag.startswith("canary")]
        names = [name for _, name, _ in self.attributes if "canary" in name]
        code = [
            f"{name}={value}"
            for tag, name, value in self.attributes
            if (name.startswith("on") and "canary" in value)
            or (
                name in ("href", "src", "action", "formaction")
                and value.strip().lower().startswith(("javascript:", "data:", "//"))
            )
        ]
        return [*tags, *names, *code]


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect every log line, tracebacks included, and every warning, as they would be printed."""
    lines: list[str] = []
    handler = _Collector(lines)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG if "celery" in logger.name else logging.INFO)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            yield lines
            lines += [str(warning.message) for warning in told]
    finally:
        for logger, (level, _) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


class _Collector(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self.lines = lines
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def contents(using: str = "default", *labels: str) -> dict[str, list[Any]]:
    """Return all rows of all tables of both apps and of the tests' queues (or of ``labels``)."""
    models = [
        model
        for name in labels or ("jaiminho_celery", "parviraptor_celery", "testapp")
        for model in apps.get_app_config(name).get_models()
    ]
    rows = {}
    for model in models:
        table = connections[using].ops.quote_name(model._meta.db_table)
        with connections[using].cursor() as cursor:
            cursor.execute(f"SELECT * FROM {table} ORDER BY 1")
            rows[model._meta.label] = list(cursor.fetchall())
    return rows
