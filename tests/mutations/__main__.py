"""Takes out, one at a time, the lines that keep a promise; each time a test must turn red.

    make mutations                      # all of them, a few minutes
    make mutations ARGS="fence unique"  # some, by name

Works on a copy of the tree. A mutation that no test notices makes the run fail, and so does one
whose line is no longer there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from difflib import get_close_matches
from pathlib import Path

from .catalogue import MUTATIONS
from .mutation import Mutation

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE_TEST = "tests/unit/test_mutations.py"


def main(names: list[str]) -> int:
    """Try the named mutations (all without names); return how many nobody noticed."""
    unknown = sorted(set(names) - {mutation.name for mutation in MUTATIONS})
    if unknown:
        known = sorted(mutation.name for mutation in MUTATIONS)
        near = {other for name in unknown for other in get_close_matches(name, known, n=5)}
        near |= {other for name in unknown for other in known if name in other}
        print(f"No mutation is called {', '.join(unknown)}. There are:")
        print(textwrap.fill(", ".join(sorted(near) or known), 96, break_on_hyphens=False))
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
        command += [f"--ignore={CATALOGUE_TEST}"]  # which notices every change
        # What the machines find need not be shrunk.
        environment = {**os.environ, "PYTHONPATH": str(copy), "FAULTS": "quick"}
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
