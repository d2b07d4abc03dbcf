"""A short soak: everything at once on real processes, while things are broken at random.

SOAK_OPTIONS runs it wider, as in SOAK_OPTIONS="--seconds 40 --database mariadb --broker rabbitmq";
for long ones there is `make soak`.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.soak.options import parse
from tests.supervision import processes

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 20
LONGER_SECONDS = 240
"""How much longer than its faults a run may take, on a slow machine."""


def soak(directory: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run a soak; return its exit status, its report, and what it printed."""
    servers.require(parse([*arguments]).database)
    out = directory / "report.json"
    argv = [sys.executable, "-m", "tests.soak", "--directory", str(directory), "--out", str(out)]
    with processes.Supervisor() as supervisor:
        running = supervisor.start(
            "soak", [*argv, *arguments], env=dict(os.environ), cwd=ROOT, log=directory / "soak.log"
        )
        status = running.wait(parse([*arguments]).seconds + LONGER_SECONDS)
        printed = running.log_text()
    assert out.exists(), printed
    return status, json.loads(out.read_text()), printed


def test_nothing_is_lost_repeated_or_out_of_order_whatever_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wider = shlex.split(os.environ.get("SOAK_OPTIONS", f"--seconds {SECONDS}"))
    status, report, printed = soak(tmp_path, *wider)
    with capsys.disabled():
        print(f"\n{printed}")  # noqa: T201 - what a run of the tests shows of it
    assert report["problems"] == []
    assert status == 0
    assert all(counts["committed"] > 0 for counts in report["by_kind"].values())
    assert sum(report["faults"].values()) > 0


def test_frauds_on_the_tables_are_noticed(tmp_path: Path) -> None:
    status, report, printed = soak(tmp_path, "--seconds", "3", "--pace", "1000", "--sabotage")
    assert status == 1
    found = "\n".join(report["problems"])
    assert "lost: lane-lost" in found, printed
    assert "repeated without a reason: lane-twice" in found, printed
    assert "at once in lane lane sabotaged" in found, printed
