"""What pytest-celery's nodes are here: containers of a Docker engine, or processes.

With an engine, broker, backend and the stock worker are pytest-celery's own containers; workers
that run our code are processes in any case, since no image has it. `E2E_NODES=docker` or
`E2E_NODES=processes` decides; otherwise the engine is asked.

Only the choice is tested, against a stand-in for Docker's client: the suite's own runs, CI's
included, have no engine, so nobody has seen these tests pass on containers.
"""

from __future__ import annotations

import functools
import gc
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import docker
from docker.errors import DockerException

VARIABLE = "E2E_NODES"
DOCKER = "docker"
PROCESSES = "processes"
ENGINE_SECONDS = 2


@functools.cache
def chosen() -> str:
    """Return DOCKER or PROCESSES, asking the engine at most once in a run."""
    return choose(os.environ, docker.from_env)


def choose(environment: Mapping[str, str], client: Callable[..., Any]) -> str:
    """Return what the variable says, else DOCKER if an engine answers within two seconds.

    ValueError if the variable says something else.
    """
    wanted = environment.get(VARIABLE, "")
    if wanted not in ("", DOCKER, PROCESSES):
        raise ValueError(f"{VARIABLE} is {wanted!r}, but may be {DOCKER!r} or {PROCESSES!r}.")
    if wanted:
        return wanted
    return DOCKER if _engine_answers(client) else PROCESSES


def _engine_answers(client: Callable[..., Any]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # in vain, it leaves its socket behind
        try:
            engine = client(timeout=ENGINE_SECONDS)
            try:
                return bool(engine.ping())
            finally:
                engine.close()
        except (DockerException, OSError):  # no socket, no permission, nobody answers in time
            return False
        finally:
            gc.collect()
