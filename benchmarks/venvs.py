"""A virtual environment per peer, made on first use from its pinned requirements."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENVS = HERE / ".venvs"
REQUIREMENTS = HERE / "requirements"
SECONDS = 600


class PeerNotInstalled(RuntimeError):
    """A peer's environment could not be made; the peer is left out."""


def python_of(requirements: str | None) -> str:
    """Return the interpreter with what requirements/NAME.txt lists; our own for None."""
    if requirements is None:
        return sys.executable
    pins = REQUIREMENTS / f"{requirements}.txt"
    venv = VENVS / requirements
    stamp = venv / f".installed-{hashlib.sha256(pins.read_bytes()).hexdigest()[:16]}"
    if not stamp.exists():
        print(f"Installing {pins.name} into {venv} (once) ...", flush=True)
        shutil.rmtree(venv, ignore_errors=True)
        _create(venv)
        _run([str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "-r", str(pins)])
        stamp.touch()
    return str(venv / "bin" / "python")


def _create(venv: Path) -> None:
    """Debian's python3 has no ensurepip without python3-venv; virtualenv does without."""
    try:
        _run([sys.executable, "-m", "venv", str(venv)])
    except PeerNotInstalled:
        shutil.rmtree(venv, ignore_errors=True)
        _run([sys.executable, "-m", "virtualenv", "-q", str(venv)])


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        tail = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
        raise PeerNotInstalled(f"{' '.join(command)}: {' '.join(tail)}") from error
