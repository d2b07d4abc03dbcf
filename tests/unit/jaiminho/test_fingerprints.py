"""Which failures are alike, and which are not."""

from __future__ import annotations

import string
from collections.abc import Callable

import pytest

from jaiminho_celery.fingerprints import fingerprint


class Away(Exception):
    """A failure of the tests."""


class Outer:
    class Away(Exception):
        """The same name elsewhere."""


def ring(message: str = "nobody there") -> None:
    raise Away(message)


def ring_on_another_line(early: bool) -> None:
    if early:
        raise Away("first line")
    raise Away("another line")


def call_ring() -> None:
    ring("deeper")


def ring_elsewhere() -> None:
    raise Away("nobody there")


def raise_outer() -> None:
    raise Outer.Away("nobody there")


def chained() -> None:
    try:
        ring()
    except Away as error:
        raise ValueError("because of that") from error


def caught(body: Callable[[], object]) -> Exception:
    try:
        body()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def print_of(body: Callable[[], object], name: str = "shop:ring") -> str:
    return fingerprint(name, caught(body))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(lambda: ring("order 1"), lambda: ring("order 2"), id="another message"),
        pytest.param(
            lambda: ring_on_another_line(True),
            lambda: ring_on_another_line(False),
            id="another line",
        ),
        pytest.param(ring, call_ring, id="another way to the same function"),
        pytest.param(lambda: ring("\ud800\0"), ring, id="a message that can't be stored"),
    ],
)
def test_failures_are_alike_whatever_the_ids_in_them(
    one: Callable[[], object], other: Callable[[], object]
) -> None:
    assert print_of(one) == print_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(ring, ring_elsewhere, id="another function"),
        pytest.param(ring, raise_outer, id="another class of the same name"),
        pytest.param(ring, chained, id="what became of it on the way"),
    ],
)
def test_failures_of_another_kind_or_place_are_not_alike(
    one: Callable[[], object], other: Callable[[], object]
) -> None:
    assert print_of(one) != print_of(other)


def test_failures_of_another_event_are_not_alike() -> None:
    assert print_of(ring, "shop:ring") != print_of(ring, "shop:rings")


def test_parts_do_not_run_into_each_other() -> None:
    error = Away()
    assert fingerprint("a", error) != fingerprint("a\0", error)
    assert fingerprint(f"a{Away.__module__}", error) != fingerprint("a", error)


@pytest.mark.parametrize("name", ["shop:ring", "", "é🎉", "\ud800"])
def test_it_is_16_hexadecimal_digits_with_or_without_a_traceback(name: str) -> None:
    for error in (Away("never raised"), caught(ring)):
        digits = fingerprint(name, error)
        assert len(digits) == 16
        assert set(digits) <= set(string.hexdigits.lower())


def test_it_is_the_same_in_every_process() -> None:
    assert fingerprint("shop:ring", ValueError("x")) == "3424eda2862c051f"
