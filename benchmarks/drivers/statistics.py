"""The figures that are made of many times."""

from __future__ import annotations

import statistics


def percentiles(milliseconds: list[float]) -> list[tuple[str, float]]:
    cuts = statistics.quantiles(milliseconds, n=20, method="inclusive")
    return [("p50", statistics.median(milliseconds)), ("p95", cuts[-1])]
