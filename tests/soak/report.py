"""The table that a run prints, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tests.soak.options import Options

if TYPE_CHECKING:
    from tests.soak.phases import Result

COLUMNS = ("intended", "committed", "ended", "broke", "repeated", "lost")
MOST_PROBLEMS = 40


def lines(options: Options, result: Result) -> Iterator[str]:
    """Yield the report, a line at a time."""
    yield f"soak on {options.database} and {options.broker}, seed {options.seed}"
    yield ""
    yield f"{'':10}" + "".join(f"{column:>11}" for column in COLUMNS)
    for kind, counts in result.by_kind.items():
        yield f"{kind:10}" + "".join(f"{counts.get(column, 0):>11}" for column in COLUMNS)
    yield ""
    for kind, times in sorted(result.faults.items()):
        yield f"{times:>6}  {kind}"
    yield f"{sum(result.faults.values()):>6}  faults"
    yield ""
    for name, number in result.numbers.items():
        yield f"{number:>8g}  {name}"
    yield ""
    yield f"{len(result.problems)} broken promises"
    yield from (f"  {problem}" for problem in result.problems[:MOST_PROBLEMS])


def write(path: Path, options: Options, result: Result) -> None:
    """Write the report as JSON."""
    chosen = {name: str(value) for name, value in asdict(options).items()}
    path.write_text(json.dumps({"options": chosen, **asdict(result)}, indent=2) + "\n")
