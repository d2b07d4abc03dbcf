"""``make up``: what it leaves behind, and what it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from example_project import up

ROOT = Path(__file__).resolve().parents[2]

HANG_UP = """
import os, signal, sys
from example_project import up
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
