"""Whoever follows the ledger of a soak knows who is in a body, at any moment."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

from tests.faults.ledger import Entry, Ledger
from tests.soak.stalls import watch_for_stalls
from tests.soak.watch import Watch
from tests.supervision import processes


def test_a_body_is_entered_and_left(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    watch = Watch(ledger.path)
    watch.update()
    for end in ("ended", "broke", "gone"):
        ledger.note("began", "a", process="w1")
        watch.update()
        assert watch.in_body == {"w1": "a"}
        ledger.note(end, "a", process="w1")  # type: ignore[arg-type]
        watch.update()
        assert watch.in_body == {}
    assert watch.ended == {"a"}


def test_half_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    line = json.dumps(asdict(Entry(1.0, "dropped", "a"))) + "\n"
    path.write_text(line[:10])
    watch = Watch(path)
    watch.update()
    assert watch.dropped == set()
    path.write_text(line)
    watch.update()
    assert watch.dropped == {"a"}


def test_a_process_that_the_machine_held_up_notes_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    began = time.monotonic()
    stop = watch_for_stalls(ledger, longest_seconds=0)  # any delay is one
    processes.wait_until(lambda: len(ledger.entries()) >= 4, 30, "a stall to be noted")
    stop.set()
    assert {"fault", "struck", "held", "released"} <= {entry.what for entry in ledger.entries()}
    assert all(began <= entry.at <= time.monotonic() for entry in ledger.entries())
