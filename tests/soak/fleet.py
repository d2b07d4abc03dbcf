"""The processes of a run: workers, beats and producers, each started again when it has ended."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.faults.ledger import Ledger
from tests.soak.verdict import WORKERS
from tests.supervision import processes

ROOT = Path(__file__).resolve().parents[2]
CHILDREN, PRODUCERS = 2, 2
NEWEST = 2
GRACE_SECONDS = 3.0
OURS = ("/parviraptor_celery/", "/jaiminho_celery/", "/tests/soak/")
"""Whose code is ours, in a traceback."""


@dataclass
class Member:
    """A place in the fleet: which program runs there, in which version of the code."""

    role: str
    place: int
    version: int
    process: processes.Managed
    is_expected_to_end: bool = False


class Fleet:
    """Starts, restarts and stops; notes in the ledger who is gone."""

    def __init__(
        self,
        supervisor: processes.Supervisor,
        directory: Path,
        environment: dict[str, str],
        ledger: Ledger,
        dice: random.Random,
    ) -> None:
        self.supervisor, self.directory = supervisor, directory
        self.environment, self.ledger, self.dice = environment, ledger, dice
        self.members: list[Member] = []
        self.leaving: list[Member] = []
        self.dying: list[psutil.Process] = []
        self.ended_by_celery = 0
        self.surprises: list[str] = []
        """Processes that ended though nobody had ended them."""
        self._started = 0

    def start_all(self) -> None:
        """Start two workers of the two versions, producers, and beat."""
        for place in range(WORKERS):
            self.start("worker", place, version=1 + place % 2)
        for place in range(PRODUCERS):
            self.start("producer", place, version=1 + place % 2)
        self.start("beat", 0, NEWEST)

    def start(self, role: str, place: int, version: int) -> Member:
        """Start a process at a place of the fleet."""
        self._started += 1
        name = f"{role}{place}-{self._started}"
        process = self.supervisor.start(
            name,
            [sys.executable, *self._program(role, name)],
            env={**os.environ, **self.environment, "SOAK_VERSION": str(version)},
            cwd=ROOT,
            log=self.directory / f"{role}{place}.log",
            grace=GRACE_SECONDS,
        )
        member = Member(role, place, version, process)
        self.members.append(member)
        return member

    def those(self, role: str) -> list[Member]:
        return [member for member in self.members if member.role == role]

    def mend(self) -> None:
        """Note who is gone, and start again whoever ought to be there."""
        for child in list(self.dying):
            if not _runs(child):
                self.note_gone(child.pid)
                self.dying.remove(child)
        for member in [*self.members, *self.leaving]:
            if member.process.poll() is not None:
                self._bury(member)

    def kill(self, member: Member) -> None:
        """SIGKILL a main process; its children find out by themselves."""
        victims = children_of(member)
        for pid in (member.process.pid, *(child.pid for child in victims)):
            self.ledger.note("struck", process=str(pid), note="killed")
        member.is_expected_to_end = True
        self.dying += victims
        member.process.kill()

    def kill_child(self, worker: Member, child: psutil.Process) -> None:
        """SIGKILL a child of a pool; its main process replaces it."""
        self.ledger.note("struck", process=str(child.pid), note="killed")
        self.dying.append(child)
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()

    def replace(self, member: Member, version: int) -> None:
        """Let a process end by itself, and start the next one beside it."""
        self.dismiss(member)
        self.start(member.role, member.place, version)

    def dismiss(self, member: Member) -> None:
        """Let a process end by itself, and start none instead."""
        if member in self.members:
            self.members.remove(member)
            self.leaving.append(member)
        member.process.send_signal(signal.SIGTERM)

    def note_gone(self, pid: int) -> None:
        self.ledger.note("gone", process=str(pid))

    def _bury(self, member: Member) -> None:
        status = member.process.poll()
        self.note_gone(member.process.pid)
        self.supervisor.processes.remove(member.process)
        if member in self.leaving:
            self.leaving.remove(member)
            return
        self.members.remove(member)
        log, pid = member.process.log_text(), member.process.pid
        if member.role == "worker" and was_ended_by_celery(log, pid):
            self.ended_by_celery += 1
        elif not _is_no_surprise(member):
            self.surprises.append(f"{member.process.name} ended by itself with status {status}")
        self.start(member.role, member.place, member.version)

    def _program(self, role: str, name: str) -> list[str]:
        celery = ["-m", "celery", "-A", "tests.soak.project.celery"]
        match role:
            case "worker":
                quiet = ["--without-mingle", "--without-gossip", "--loglevel=INFO"]
                return [
                    *celery,
                    "worker",
                    f"--concurrency={CHILDREN}",
                    "-Q",
                    "soak,soak-messages",
                    "-n",
                    f"{name}@%h",
                    *quiet,
                ]
            case "beat":
                schedule = self.directory / f"{name}.schedule"
                return [*celery, "beat", "--pidfile=", f"--schedule={schedule}", "--max-interval=1"]
            case _:
                return ["-m", "tests.soak.producer", f"--seed={self.dice.randrange(10**9)}"]


def _is_no_surprise(member: Member) -> bool:
    if member.is_expected_to_end:
        return True
    return (  # it killed itself, and noted it
        member.role == "producer" and member.process.poll() == -signal.SIGKILL
    )


def was_ended_by_celery(log: str, pid: int) -> bool:
    """Return whether Celery gave up in a worker by an error that came by none of our code.

    It does so when children are killed while they start, and kombu when it closes what it had to a
    Redis that is gone. Whoever runs workers starts such a one again, and so does the fleet.
    """
    _, gave_up, traceback = log.partition(f" {pid} CRITICAL celery.worker: Unrecoverable error: ")
    return bool(gave_up) and not any(code in traceback for code in OURS)


def process_of(member: Member) -> psutil.Process | None:
    """Return the main process; None if it is gone."""
    try:
        return psutil.Process(member.process.pid)
    except psutil.NoSuchProcess:
        return None


def children_of(member: Member) -> list[psutil.Process]:
    """Return the pool of a worker; none if it is gone, or not up yet."""
    try:
        return list(psutil.Process(member.process.pid).children())
    except psutil.NoSuchProcess:
        return []


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
