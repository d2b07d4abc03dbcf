"""The command line."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from .bench import Options
from .peers import PEERS
from .workloads import WORKLOADS

RESULTS = Path(__file__).resolve().parent / "results"


def parse(argv: list[str]) -> argparse.Namespace:
    parser = _parser()
    arguments = parser.parse_args(argv)
    for name, known in (("work", WORKLOADS), ("peers", {peer.name for peer in PEERS})):
        if unknown := set(getattr(arguments, name)) - set(known):
            parser.error(
                f"--{name}: no {', '.join(sorted(unknown))}. Known: {', '.join(sorted(known))}"
            )
    return arguments


def chosen(arguments: argparse.Namespace) -> Options:
    return Options(
        peers=tuple(arguments.peers),
        messages=arguments.messages,
        jobs=arguments.jobs,
        sends=arguments.sends,
        sizes=tuple(arguments.sizes),
        cap_seconds=arguments.cap,
        config=dict(arguments.set),
    )


def _parser() -> argparse.ArgumentParser:
    defaults = Options(peers=())
    parser = argparse.ArgumentParser(
        prog="make benchmark", description="Measures this library side by side with its peers."
    )
    add = parser.add_argument
    add("--work", type=_works, metavar="A,B", default=_default_work(), help=_listing(WORKLOADS))
    peers = [peer.name for peer in PEERS]
    add("--peers", type=_names, metavar="A,B", default=peers, help=_listing(peers))
    add("--repetitions", type=_positive, default=3, help="of each case, interleaved (default: 3)")
    add("--messages", type=_positive, default=defaults.messages, help="that wait for a relay")
    add("--jobs", type=_positive, default=defaults.jobs, help="that wait in a queue")
    add("--sends", type=_quantiles, default=defaults.sends, help="transactions that are timed")
    add("--sizes", type=_sizes, default=defaults.sizes, help="rows of outbox-growth, -clean: 1,2")
    add(
        "--cap",
        type=float,
        default=defaults.cap_seconds,
        help="most seconds one relay or worker runs",
    )
    add(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="KEY=JSON",
        help="a key of this library's JAIMINHO_CONFIG, e.g. LEASE_SECONDS=30; may be repeated",
    )
    add("--out", type=Path, default=_new_file(), help="where the JSON lines go (appended)")
    add("--table", type=Path, nargs="+", metavar="FILE", help="only print the table of old runs")
    return parser


def _works(text: str) -> list[str]:
    """Return the workloads; the beginning of names (`queue`) stands for the usual ones of them."""
    usual = _default_work()
    return [
        work
        for name in _names(text)
        for work in [each for each in usual if each.startswith(f"{name}-")] or [name]
    ]


def _default_work() -> list[str]:
    return [name for name, workload in WORKLOADS.items() if workload.is_default]


def _listing(names: Any) -> str:
    return f"of: {', '.join(names)}"


def _new_file() -> Path:
    return RESULTS / f"{datetime.now():%Y%m%d-%H%M%S}.jsonl"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _positive(text: str) -> int:
    number = int(text.replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def _quantiles(text: str) -> int:
    if _positive(text) < 2:
        raise argparse.ArgumentTypeError("a p95 needs two transactions at least")
    return _positive(text)


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(_positive(part) for part in _names(text))
    if any(size % 1000 or size < 10_000 for size in sizes):
        raise argparse.ArgumentTypeError("sizes are multiples of 1,000, from 10,000 on")
    return sizes


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{value!r} is no JSON: {error}") from error
