"""``make up``: what it leaves behind, and what it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from example_project import up
from example_project.demo.processes import free_port

ROOT = Path(__file__).resolve().parents[2]

HANG_UP = """
import os, signal, sys
from example_project import up
from example_project.demo.processes import free_port
signal.signal(signal.SIGTERM, lambda *_: (print("stopping"), sys.exit(7)))
signal.signal(signal.SIGHUP, up._end_without_terminal)
os.kill(os.getpid(), signal.SIGHUP)
signal.pause()
"""


def test_it_ends_in_order_when_its_terminal_is_closed() -> None:
    command = [sys.executable, "-u", "-c", HANG_UP]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(30) == 7


@pytest.mark.parametrize("url", ["", "postgres://user:secret@127.0.0.1/x"])
def test_the_command_for_a_user_is_one_to_copy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("EXAMPLE_DIR", "/tmp/a b")
    if url:
        monkeypatch.setenv("DATABASE_URL", url)
    addresses = up._addresses({**up.PORTS, "CELERY_BROKER_URL": "redis://:secret@127.0.0.1/0"})
    assert "secret" not in addresses
    assert max(map(len, addresses.splitlines())) < 120
    command = next(line for line in addresses.splitlines() if "createsuperuser" in line)
    assert ("EXAMPLE_DIR='/tmp/a b' " in command) == (not url)
    assert ("DATABASE_URL=... " in command) == bool(url)


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **to: str) -> str:
    """Return what it says when it ends at once; ports of its own, so that none is taken."""
    for name in up.PORTS:
        monkeypatch.setenv(name, str(free_port()))
    monkeypatch.setenv("CELERY_BROKER_URL", "memory://")
    for name, value in to.items():
        monkeypatch.setenv(name, value)
    assert up.main() == 1
    told = capsys.readouterr()
    return told.out + told.err


def test_a_wrong_port_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(monkeypatch, capsys, WEB_PORT="abc", FLOWER_PORT="70000")
    assert told == "Not a port: WEB_PORT=abc, FLOWER_PORT=70000.\n"


def test_a_database_that_is_away_is_told_in_a_few_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("EXAMPLE_DIR", str(tmp_path))
    url = f"postgres://nobody@127.0.0.1:{free_port()}/x"
    told = refused(monkeypatch, capsys, DATABASE_URL=url)
    assert "refused" in told
    assert "Traceback" not in told
    assert len(told.splitlines()) < 8
