"""Runs the chosen workloads, writes JSON lines, prints the table: `python -m benchmarks --help`."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.supervision import processes

from . import options, results, servers, table
from .bench import ROOT, Bench
from .cases import Case
from .peers import PEERS
from .results import Measurement, ResultFile
from .venvs import PeerNotInstalled
from .workloads import WORKLOADS

Work = list[tuple[str, Case]]


def main(argv: list[str]) -> int:
    arguments = options.parse(argv)
    if arguments.table:
        print(table.render(*results.read(arguments.table)))
        return 0
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # tidy up then, too
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as directory,
        processes.Supervisor() as supervisor,
    ):
        os.chmod(directory, 0o755)  # PostgreSQL may have to run as somebody else
        found = servers.find(supervisor, Path(directory))
        if not found["postgresql"].url:
            print(found["postgresql"].reason, file=sys.stderr)
            return 1
        name = f"benchmarks_{uuid4().hex[:8]}"
        bench = Bench(name, options.chosen(arguments), found, supervisor, Path(directory))
        try:
            failed = _run(bench, arguments.work, arguments.repetitions, arguments.out)
        finally:
            bench.close()
    print(table.render(*results.read([arguments.out])))
    print(f"{time.monotonic() - started:.0f} seconds; {arguments.out}")
    return 1 if failed else 0


def _run(bench: Bench, names: list[str], repetitions: int, out: Path) -> int:
    """Measure every case once per repetition, so that peers alternate; return the failures."""
    work, left_out = _cases(bench, names)
    versions, missing = _versions(bench, {case.peer for _, case in work})
    left_out += [f"{peer} left out: {why}" for peer, why in missing.items()]
    for line in left_out:
        print(line, flush=True)
    file = ResultFile(out, {**_circumstances(bench), **versions, "left out": left_out})
    return sum(
        _measure(file, name, case, repetition)
        for repetition in range(repetitions)
        for name, case in work
        if case.peer not in missing
    )


def _cases(bench: Bench, names: list[str]) -> tuple[Work, list[str]]:
    """Return what is to be measured, and what can't be for want of a broker."""
    work: Work = []
    left_out = []
    for name in names:
        workload = WORKLOADS[name]
        if missing := " ".join(filter(None, map(bench.missing, workload.brokers))):
            left_out.append(f"{name} left out: {missing}")
            continue
        work += [(name, case) for case in workload.cases(bench)]
        partly = filter(None, map(bench.missing, workload.partly))
        left_out += [f"{name} left out in part: {reason}" for reason in partly]
    return work, left_out


def _measure(file: ResultFile, name: str, case: Case, repetition: int) -> bool:
    """Measure a case once; return whether that failed. A broken peer stops nobody else."""
    result, error, speed = {}, "", results.probe()
    try:
        result = case.measure()
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    measured = Measurement(name, case.peer, case.label, repetition, speed, result, error)
    file.add(measured)
    shown = error or ", ".join(_short(key, value) for key, value in result.items())
    print(
        f"{time.strftime('%X')} {name} {repetition + 1}: {case.peer}, {case.label}: {shown}",
        flush=True,
    )
    return bool(error)


def _short(key: str, value: Any) -> str:
    return f"{key} {value:,.2f}" if isinstance(value, float) else f"{key} {value}"


def _versions(bench: Bench, names: set[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what is installed for each peer, and why a peer can't be installed."""
    versions, missing = {}, {}
    for peer in [peer for peer in PEERS if peer.name in names]:
        try:
            versions[f"{peer.name} runs on"] = bench.call(peer, "versions")
        except PeerNotInstalled as error:
            missing[peer.name] = str(error)
    return versions, missing


def _circumstances(bench: Bench) -> dict[str, Any]:
    return {
        "commit": _commit(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "Python": platform.python_version(),
        "PostgreSQL": bench.databases.facts(),
        "servers": {s.title: s.origin or "missing" for s in bench.servers.values()},
        "JAIMINHO_CONFIG": bench.options.config,
    }


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
