"""Takes out, one at a time, the lines that keep a promise; each time a test must turn red.

    make mutations                      # all of them, a few minutes
    make mutations ARGS="fence unique"  # some, by name

Works on a copy of the tree. A mutation that no test notices makes the run fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LANES, OUTBOX = "tests/integration/test_lanes.py", "tests/integration/test_outbox.py"


@dataclass(frozen=True)
class Mutation:
    """A line that protects something, what it becomes, and the tests that should notice."""

    name: str
    path: str
    before: str
    after: str
    tests: str


MUTATIONS = [
    Mutation(
        "fence",
        "parviraptor_celery/fencing.py",
        'return {"pk": self.pk, "status": status, "attempt": attempt}',
        'return {"pk": self.pk}',
        LANES,
    ),
    Mutation(
        "unique",
        "parviraptor_celery/fencing.py",
        "running_lane=self.lane,",
        "running_lane=None,",
        LANES,
    ),
    Mutation(
        "look-after-commit",
        "parviraptor_celery/drains.py",
        "if row is None and not report.is_exhausted:",
        "if False:",
        LANES,
    ),
    Mutation(
        "lane-head-by-range",
        "parviraptor_celery/leased.py",
        'same_lane = {"lane__gte": lane, "lane__lte": lane}',
        'same_lane = {"lane": lane}',
        LANES,
    ),
    Mutation(
        "resolved-expressions",
        "parviraptor_celery/statements.py",
        "value.resolve_expression(compiler.query, allow_joins=False, for_save=True)",
        "value",
        LANES,
    ),
    Mutation(
        "unbegun-pay-nothing",
        "parviraptor_celery/sweep.py",
        "job.worker_deaths + (job.begun_at is not None)",
        "job.worker_deaths + 1",
        LANES,
    ),
    Mutation(
        "atomic-undo",
        "parviraptor_celery/execution.py",
        "if not isinstance(finished.outcome, Processed) or not finished.settle():",
        "if not finished.settle():",
        LANES,
    ),
    Mutation(
        "born-leased",
        "jaiminho_celery/strategies.py",
        "event.status = EventStatus.PUBLISHING",
        "event.status = EventStatus.WAITING; return event.save(using=alias)",
        OUTBOX,
    ),
    Mutation(
        "order-barrier",
        "jaiminho_celery/barriers.py",
        "if event.pk <= self.passed:",
        "if True:",
        OUTBOX,
    ),
    Mutation(
        "late-hook-wins-again",
        "jaiminho_celery/strategies.py",
        "if is_late and not alone(event.alias, event.renew):",
        "if False:",
        OUTBOX,
    ),
    Mutation(
        "signature",
        "jaiminho_celery/execution.py",
        "verify(event)",
        "pass",
        "tests/unit/jaiminho",
    ),
    Mutation(
        "import-only-installed-apps",
        "jaiminho_celery/registry.py",
        "if not separator or not _is_in_installed_app(module):",
        "if not separator:",
        "tests/unit/jaiminho",
    ),
    Mutation(
        "dependents-fail",
        "parviraptor_celery/feeds.py",
        "if row.held_by is not None:",
        "if False:",
        "tests/unit/parviraptor",
    ),
    Mutation(
        "eager-trampoline",
        "parviraptor_celery/broker.py",
        "if waiting is not None:",
        "if False:",
        "tests/unit",
    ),
]


def main(names: list[str]) -> int:
    """Try the named mutations (all without names); return how many nobody noticed."""
    unknown = sorted(set(names) - {mutation.name for mutation in MUTATIONS})
    if unknown:
        known = ", ".join(mutation.name for mutation in MUTATIONS)
        print(f"no mutation is called {', '.join(unknown)}; there are: {known}")
        return 2
    chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    unnoticed = [mutation for mutation in chosen if not is_noticed(mutation)]
    for mutation in unnoticed:
        print(f"NOBODY NOTICED {mutation.name}: {mutation.path}: {mutation.before}")
    print(f"{len(chosen) - len(unnoticed)} of {len(chosen)} mutations were noticed")
    return len(unnoticed)


def is_noticed(mutation: Mutation) -> bool:
    """Return whether a test turns red when ``mutation`` is applied to a copy of the tree."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Path(folder) / "tree"
        ignored = shutil.ignore_patterns(".git", ".venv", "*.egg-info", "__pycache__", ".*_cache")
        shutil.copytree(ROOT, copy, ignore=ignored)
        _apply(mutation, copy / mutation.path)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", mutation.tests]
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, check=False
        )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    print(f"{mutation.name:28} {failed[0] if failed else 'nothing failed'}", flush=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest could not run:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return bool(failed)


def _apply(mutation: Mutation, path: Path) -> None:
    source = path.read_text()
    if source.count(mutation.before) != 1:
        raise SystemExit(f"{mutation.name}: {mutation.path} doesn't hold its line exactly once")
    path.write_text(source.replace(mutation.before, mutation.after))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
