"""Counts, for each promise of docs/guarantees.md, the cases in which its tests try it.

    make guarantees                  # fails if the page is not up to date
    make guarantees ARGS=--write     # brings it up to date

A case is what pytest calls a test: one function with one set of parameters, on one engine.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guarantees.md"
NAMED_TEST = re.compile(r"`([\w/]+\.py)?::(\w+)`")
COLUMN = "cases"
WIDTH = 5


class Collector:
    """A pytest plugin that counts the cases of each function and each class."""

    def __init__(self) -> None:
        self.cases: Counter[tuple[str, str]] = Counter()

    def pytest_collection_finish(self, session: Any) -> None:
        for item in session.items:
            file = item.path.relative_to(PAGE.parents[1] / "tests").as_posix()
            for name in {item.originalname, item.cls.__name__ if item.cls else ""} - {""}:
                self.cases[file, name] += 1


def main(arguments: list[str]) -> int:
    """Check or rewrite the column; return 1 if a figure is wrong or a test doesn't exist."""
    collector = Collector()
    with redirect_stdout(StringIO()) as said:
        if pytest.main(["--collect-only", "-q"], plugins=[collector]) != 0:
            sys.stderr.write(said.getvalue())
            return 1
    page = PAGE.read_text()
    wanted, unknown = counted(page, collector.cases)
    for test in unknown:
        print(f"docs/guarantees.md names {test}, which does not exist")
    if unknown or "--write" not in arguments:
        if wanted != page:
            print("docs/guarantees.md is not up to date: make guarantees ARGS=--write")
        return int(bool(unknown) or wanted != page)
    PAGE.write_text(wanted)
    return 0


def counted(page: str, cases: Counter[tuple[str, str]]) -> tuple[str, list[str]]:
    """Return the page with the right figures, and the tests in it that do not exist."""
    file, lines, unknown = "", [], []
    for line in page.splitlines():
        tests = []
        for given, name in NAMED_TEST.findall(line):
            file = given or file
            tests.append((file, name))
        unknown += [f"{file}::{name}" for file, name in tests if not cases[file, name]]
        lines.append(_with_figure(line, sum(cases[test] for test in tests)))
    return "\n".join(lines) + "\n", unknown


def _with_figure(line: str, figure: int) -> str:
    """Fill in the last cell of a row of those tables that have the column."""
    cells = line.strip().strip("|").split("|")
    if not line.startswith("| ") or len(cells) != WIDTH or cells[-1].strip() == COLUMN:
        return line
    return f"|{'|'.join(cells[:-1])}| {figure} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
