"""Made-up histories for the tests of those that judge real ones."""

from __future__ import annotations

from tests.faults.ledger import Entry


def entries(*lines: str) -> list[Entry]:
    """Make an entry of each line, one per second.

    A line is "began a by w1 in lane as note"; only the first two words have to be there, and "-"
    is no item. In a note "_" stands for a blank.
    """
    found = []
    for second, line in enumerate(lines):
        what, item, *rest = line.split()
        words = dict(zip(rest[::2], rest[1::2], strict=True))
        found.append(
            Entry(
                second,
                what,  # type: ignore[arg-type]
                "" if item == "-" else item,
                words.get("in", ""),
                words.get("by", ""),
                words.get("as", "").replace("_", " "),
            )
        )
    return found


def committed(*items: str) -> list[str]:
    return [f"{what} {item}" for item in items for what in ("intended", "committed")]


def run(item: str, worker: str = "w1", lane: str = "lane") -> list[str]:
    return [f"began {item} by {worker} in {lane}", f"ended {item} by {worker} in {lane}"]
