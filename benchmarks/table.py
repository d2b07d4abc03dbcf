"""The measurements as Markdown: a table per workload, then the goals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from .goals import OUTBOX_GOALS, Goal, ratio
from .queue_goals import QUEUE_GOALS
from .results import Measurement, median

PART = 100  # characters
GOALS = (*OUTBOX_GOALS, *QUEUE_GOALS)

Column = tuple[str, Callable[[Sequence[Measurement]], str]]


def render(circumstances: dict[str, Any], measurements: Sequence[Measurement]) -> str:
    """Return everything as one Markdown text."""
    lines = [*_circumstances(circumstances, measurements)]
    for workload in dict.fromkeys(row.workload for row in measurements):
        rows = [row for row in measurements if row.workload == workload]
        lines += ["", f"### {workload}", "", *_table(rows, COLUMNS[workload])]
    measured = {row.workload for row in measurements}
    if goals := [goal for goal in GOALS if goal.workload in measured]:
        lines += ["", "### Goals", "", *_goals(goals, measurements)]
    return "\n".join([*lines, ""])


def per_second(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _circumstances(
    circumstances: dict[str, Any], measurements: Sequence[Measurement]
) -> Iterator[str]:
    for name, value in circumstances.items():
        text = value
        if isinstance(value, dict):
            text = ", ".join(f"{key} {item}" for key, item in value.items())
        elif isinstance(value, list):
            text = "; ".join(map(str, value))
        if text:
            yield f"- {name}: {text}"
    if probes := sorted(row.probe_ms for row in measurements):
        yield (
            f"- probe (a fixed loop of pure Python): median {median(probes):.1f} ms,"
            f" {probes[0]:.1f} to {probes[-1]:.1f}"
        )


def _table(rows: Sequence[Measurement], columns: Sequence[Column]) -> Iterator[str]:
    yield from _header("peer", "case", *(title for title, _ in columns), "runs", "remarks")
    for peer, label in dict.fromkeys(row.case for row in rows):
        same = [row for row in rows if row.case == (peer, label)]
        good = [row for row in same if not row.error]
        cells = [show(good) for _, show in columns]
        yield _line(peer, label, *cells, str(len(good)), _remarks(same))


def _goals(goals: Sequence[Goal], measurements: Sequence[Measurement]) -> Iterator[str]:
    yield from _header("workload", "ours by that of", "which is", "measured", "wanted", "reached")
    for goal in goals:
        found = ratio(goal, measurements)
        wanted = f"{'≥' if goal.at_least else '≤'} {goal.wanted:g}"
        if found is None:
            yield _line(goal.workload, goal.against, "-", "not measured", wanted, "-")
            continue
        value, case = found
        reached = "yes" if goal.is_reached(value) else "no"
        yield _line(goal.workload, goal.against, ", ".join(case), f"{value:.2f}", wanted, reached)


def _remarks(rows: Sequence[Measurement]) -> str:
    """Say what went wrong, and that nothing did where everything could be counted."""
    remarks = sorted({_shortened(row.error) for row in rows if row.error})
    results = [row.result for row in rows if row.result]
    for name in ("lost", "duplicates", "disorder", "left"):
        numbers = [result[name] for result in results if result.get(name)]
        remarks += [f"{name}: {', '.join(map(str, numbers))}"] if numbers else []
    if any(result.get("capped") for result in results):
        remarks.append("stopped before the end, losses not counted")
    counted = results and all("lost" in result for result in results)
    return "; ".join(remarks) or ("nothing lost or twice" if counted else "")


def _shortened(error: str) -> str:
    """Return the head and the tail of an error: the tail is where a process's log ends."""
    text = " ".join(error.split())
    return text if len(text) <= 2 * PART else f"{text[:PART]} ... {text[-PART:]}"


def _header(*titles: str) -> Iterator[str]:
    yield _line(*titles)
    yield "|" + "---|" * len(titles)


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _figures(rows: Sequence[Measurement], name: str) -> Iterable[float | None]:
    return (row.result.get(name) for row in rows)


def _rate(name: str) -> Callable[[Sequence[Measurement]], str]:
    """Show the median and, of several runs, the lowest and the highest."""

    def show(rows: Sequence[Measurement]) -> str:
        there = sorted(value for value in _figures(rows, name) if value is not None)
        spread = f" ({there[0]:,.0f} to {there[-1]:,.0f})" if len(there) > 1 else ""
        return per_second(median(there)) + spread

    return show


def _pair(name: str) -> Callable[[Sequence[Measurement]], str]:
    def show(rows: Sequence[Measurement]) -> str:
        p50, p95 = (median(_figures(rows, f"{name}_{p}")) for p in ("p50", "p95"))
        return f"{decimals(p50)} / {decimals(p95)}"

    return show


def _number(name: str) -> Callable[[Sequence[Measurement]], str]:
    return lambda rows: per_second(median(_figures(rows, name)))


def _microseconds(name: str) -> Callable[[Sequence[Measurement]], str]:
    """Show what one row costs, the inverse of a rate."""

    def show(rows: Sequence[Measurement]) -> str:
        rate = median(_figures(rows, name))
        return f"{1e6 / rate:,.0f}" if rate else "-"

    return show


RELAY: tuple[Column, ...] = (
    ("messages", _number("messages")),
    ("arrive, per second", _rate("rate")),
    ("settled, per second", _rate("durable_rate")),
    ("MiB", _number("mib")),
)
SEND: tuple[Column, ...] = (
    ("call p50 / p95, ms", _pair("call")),
    ("transaction with it", _pair("with")),
    ("without", _pair("without")),
    ("added", _pair("added")),
)
GROWTH: tuple[Column, ...] = (
    ("messages", _number("messages")),
    ("per second", _rate("rate")),
    ("µs a row", _microseconds("rate")),
    ("first 10,000, µs a row", _microseconds("first_rate")),
    ("last 10,000, µs a row", _microseconds("last_rate")),
    ("MiB", _number("mib")),
)
CLEAN: tuple[Column, ...] = (
    ("deleted", _number("deleted")),
    ("per second", _rate("rate")),
    ("µs a row", _microseconds("rate")),
    ("MiB", _number("mib")),
)
DRAIN: tuple[Column, ...] = (
    ("jobs", _number("jobs")),
    ("bodies start, per second", _rate("rate")),
    ("finished, per second", _rate("durable_rate")),
    ("workers' CPU, µs a job", _number("cpu_us")),
)
ENQUEUE: tuple[Column, ...] = (
    ("jobs", _number("jobs")),
    ("many, per second", _rate("rate")),
    ("one p50 / p95, ms", _pair("one")),
    ("kicks", _number("kicks")),
)
LATENCY: tuple[Column, ...] = (
    ("jobs", _number("jobs")),
    ("until the body starts p50 / p95, ms", _pair("wait")),
)
BACKLOG: tuple[Column, ...] = (
    ("waiting", _number("waiting")),
    ("bodies start, per second", _rate("rate")),
    ("workers' CPU, µs a job", _number("cpu_us")),
)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "outbox-relay-redis": RELAY,
    "outbox-relay-rabbitmq": RELAY,
    "outbox-send": SEND,
    "outbox-growth": GROWTH,
    "outbox-clean": CLEAN,
    "queue-independent-redis": DRAIN,
    "queue-independent-rabbitmq": DRAIN,
    "queue-lanes": DRAIN,
    "queue-one-lane": DRAIN,
    "queue-enqueue": ENQUEUE,
    "queue-latency": LATENCY,
    "queue-backlog": BACKLOG,
}
