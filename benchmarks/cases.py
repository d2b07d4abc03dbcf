"""What a workload consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """One line of a table: who is measured, how it is called, and what measures it once."""

    peer: str
    label: str
    measure: Callable[[], dict[str, Any]]
