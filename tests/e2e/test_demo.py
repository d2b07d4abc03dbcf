"""The demo as a user runs it: its ledger tells the truth, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.supervision import processes

ROOT = Path(__file__).resolve().parent.parent.parent
RUN_SECONDS = 150
CHOSEN_BY_THE_DEMO = ("DATABASE_URL", "CELERY_BROKER_URL", "DJANGO_SETTINGS_MODULE")


@contextmanager
def demo(log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The demo as a process in a session of its own, with its output in `log`."""
    environment = {k: v for k, v in os.environ.items() if k not in CHOSEN_BY_THE_DEMO}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "example_project.demo", *options],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A shell's background jobs ignore SIGINT, and so would their children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def finished(log: Path, *options: str) -> tuple[int, str]:
    """Exit status and output of a run to its end."""
    with demo(log, *options) as process:
        status = process.wait(RUN_SECONDS)
    return status, log.read_text()


def row(output: str, name: str) -> list[str]:
    """The cells of a row of the ledger: done, lost, duplicated, out of order."""
    found = re.search(rf"^{name} +(\S+) +(\S+) +(\S+) +(\S+)$", output, re.MULTILINE)
    assert found, output
    return list(found.groups())


def directory_of(output: str) -> Path:
    """The run's directory, which the demo names in its first lines."""
    found = re.search(r"Logs: (\S+)", output)
    assert found, output
    return Path(found[1])


def survivors(directory: Path) -> list[str]:
    """Processes that belong to the run in this directory."""
    return [
        str(process) for process in psutil.process_iter() if _belongs_to(process, str(directory))
    ]


def _belongs_to(process: psutil.Process, directory: str) -> bool:
    try:
        in_environment = process.environ().get("EXAMPLE_DIR") == directory
        return in_environment or directory in " ".join(process.cmdline())
    except psutil.Error:  # it has ended meanwhile, or is none of ours
        return False


def test_nothing_is_lost_or_out_of_order(tmp_path: Path) -> None:
    status, output = finished(tmp_path / "log", "--departures", "80")
    assert status == 0, output
    assert row(output, "departures")[:2] == ["80", "0"]
    assert row(output, "aircraft legs") == ["80", "0", "-", "0"]
    assert row(output, "invoices")[:2] == ["80", "0"]
    delivered, lost, duplicated, out_of_order = row(output, "board messages")
    assert (delivered, lost, out_of_order) == ("80", "0", "0")
    # Two kills, and each may repeat the one message that each of two children had under way.
    assert int(duplicated) <= 4
    for accident in ("the board is taken down", "the worker is killed", "a new worker is started"):
        assert accident in output
    assert survivors(directory_of(output)) == []
    assert not directory_of(output).exists()


def test_a_message_that_is_dropped_shows_in_the_ledger(tmp_path: Path) -> None:
    options = ("--departures", "80", "--sabotage", "drop-event")
    status, output = finished(tmp_path / "log", *options)
    assert status == 1, output
    assert row(output, "board messages")[:2] == ["79", "1"]
    assert "1 board messages were lost" in output
    assert "kept in" in output


def test_legs_past_the_fence_show_in_the_ledger(tmp_path: Path) -> None:
    options = ("--departures", "400", "--sabotage", "swap-legs")
    status, output = finished(tmp_path / "log", *options)
    assert status == 1, output
    assert row(output, "aircraft legs")[3] == "1"
    assert "1 aircraft legs were out of order" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    log = tmp_path / "log"
    with demo(log) as process:
        processes.wait_until(lambda: "accepted" in log.read_text(), 60, "the first departures")
        directory = directory_of(log.read_text())
        assert survivors(directory)
        process.send_signal(number)
        assert process.wait(60) == 130, log.read_text()
    assert survivors(directory) == []
    assert not directory.exists()
