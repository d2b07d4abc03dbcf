"""The supervisor that the demo and these tests rely on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.supervision import processes

ROOT = Path(__file__).resolve().parents[2]
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def python(source: str) -> list[str]:
    return [sys.executable, "-c", source]


def test_a_process_that_exits_before_it_is_ready_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with processes.Supervisor() as supervisor:
        with pytest.raises(processes.ProcessFailed) as caught:
            supervisor.start(
                "web",
                python("print('port is taken'); raise SystemExit(3)"),
                ready=lambda: False,
                log=tmp_path / "web.log",
            )
        assert supervisor.processes == []
    assert "web exited with status 3" in str(caught.value)
    assert "port is taken" in str(caught.value)


def test_a_process_that_never_gets_ready_is_killed() -> None:
    with processes.Supervisor() as supervisor:
        with pytest.raises(processes.ProcessFailed, match=r"not ready within 0\.1 s"):
            supervisor.start("web", SLEEP, ready=lambda: False, ready_timeout=0.1)
        assert supervisor.processes == []


def test_a_missing_command_is_told_at_once() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-command"):
        processes.Supervisor().start("web", ["no-such-command"])


def test_the_last_started_is_stopped_first(tmp_path: Path) -> None:
    source = (
        "import os, signal, sys, time\n"
        "def stop(*_):\n"
        "    open(sys.argv[1], 'a').write(sys.argv[2]); os._exit(0)\n"
        "signal.signal(signal.SIGTERM, stop); print('up', flush=True); time.sleep(60)\n"
    )
    order = tmp_path / "order"
    with processes.Supervisor() as supervisor:
        for name in ("server", "worker"):
            log = tmp_path / f"{name}.log"
            supervisor.start(
                name,
                [*python(source), str(order), f"{name} "],
                ready=lambda log=log: "up" in processes.read_log(log),  # type: ignore[misc]
                log=log,
            )
    assert order.read_text() == "worker server "


def test_one_that_ignores_the_signal_is_killed_after_its_grace(tmp_path: Path) -> None:
    source = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)\n"
    )
    log = tmp_path / "deaf.log"
    with processes.Supervisor() as supervisor:
        deaf = supervisor.start(
            "deaf", python(source), ready=lambda: "up" in processes.read_log(log), log=log
        )
        assert deaf.terminate(0.1) == -signal.SIGKILL


def test_stopping_takes_what_is_left_of_the_session_along(tmp_path: Path) -> None:
    source = "import subprocess, sys\nprint(subprocess.Popen(['sleep', '60']).pid, flush=True)"
    log = tmp_path / "parent.log"
    with processes.Supervisor() as supervisor:
        parent = supervisor.start("parent", python(source), log=log)
        assert parent.wait(10) == 0
        child = int(parent.log_text())
        assert psutil.pid_exists(child)
    processes.wait_until(lambda: _gone(child), 5, "the child to be gone")


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG, which is Linux'")
def test_children_die_with_a_parent_that_is_killed() -> None:
    source = (
        "import sys, time\n"
        "from tests.supervision import processes\n"
        "supervisor = processes.Supervisor()\n"
        f"for name in 'ab': print(supervisor.start(name, {SLEEP!r}).pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(python(source), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent, parent.stdout:
        children = [int(parent.stdout.readline()) for _ in "ab"]
        assert all(psutil.pid_exists(child) for child in children)
        os.kill(parent.pid, signal.SIGKILL)
    processes.wait_until(lambda: all(map(_gone, children)), 5, "the children to be gone")


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # nobody reaps for us here
    except psutil.NoSuchProcess:
        return True
