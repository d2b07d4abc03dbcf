"""The catalogue of mutations: each names a line that there is, once, and tests that there are."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.mutations.__main__ import ROOT, main
from tests.mutations.catalogue import MUTATIONS
from tests.mutations.mutation import Mutation


def test_each_line_stands_in_its_file_exactly_once() -> None:
    assert [mutation.name for mutation in MUTATIONS if is_stale(mutation)] == []


def is_stale(mutation: Mutation) -> bool:
    lines = (ROOT / mutation.path).read_text().count(mutation.before)
    has_tests = (ROOT / mutation.tests.split("::")[0]).exists()
    return lines != 1 or mutation.after == mutation.before or not has_tests


def test_no_two_have_the_same_name() -> None:
    names = Counter(mutation.name for mutation in MUTATIONS)
    assert [name for name, count in names.items() if count > 1] == []


def test_a_name_that_there_is_not_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no such mutation"]) == 2
    assert "No mutation is called no such mutation" in capsys.readouterr().out
