"""python -m tests.soak: see --help."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.soak import report
from tests.soak.options import parse
from tests.soak.run import soak


def main() -> int:
    """Return 0 if every promise was kept, else 1; then ledger and logs stay."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all that was started ends
    print(f"seed {options.seed}", flush=True)
    directory = options.directory or Path(tempfile.mkdtemp(prefix="soak-"))
    directory.mkdir(parents=True, exist_ok=True)
    result = soak(options, directory)
    print("\n".join(report.lines(options, result)))
    if options.out:
        report.write(options.out, options, result)
    if result.problems:
        print(f"ledger and logs: {directory}")
    elif not options.directory:
        shutil.rmtree(directory)
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
