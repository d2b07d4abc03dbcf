"""The catalogue of mutations: each names a line that there is, once, and tests that there are."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.mutations.__main__ import ROOT, main
from tests.mutations.catalogue import MUTATIONS
from tests.mutations.mutation import Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_its_line_stands_in_its_file_exactly_once(mutation: Mutation) -> None:
    assert (ROOT / mutation.path).read_text().count(mutation.before) == 1
    assert mutation.after != mutation.before
    assert (ROOT / mutation.tests.split("::")[0]).exists()


def test_no_two_have_the_same_name() -> None:
    names = Counter(mutation.name for mutation in MUTATIONS)
    assert [name for name, count in names.items() if count > 1] == []


def test_a_name_that_there_is_not_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no such mutation"]) == 2
    assert "no mutation is called no such mutation" in capsys.readouterr().out
