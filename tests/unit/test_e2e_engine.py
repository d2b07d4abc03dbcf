"""Whether the end-to-end tests take containers or processes, asked of a stand-in for Docker."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from docker.errors import APIError, DockerException

from tests.e2e import engine


class Client:
    """Docker's client, as far as the choice needs it."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked, self.closed = answer, 0, False

    def __call__(self, *, timeout: float) -> Client:
        assert timeout <= 2, "no run may hang here"
        return self

    def ping(self) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        (True, engine.DOCKER),
        (False, engine.PROCESSES),
        (DockerException("no socket"), engine.PROCESSES),
        (APIError("not allowed"), engine.PROCESSES),
        (requests.exceptions.ReadTimeout("too slow"), engine.PROCESSES),
        (ConnectionRefusedError(), engine.PROCESSES),
    ],
)
def test_containers_are_taken_where_an_engine_answers(answer: Any, chosen: str) -> None:
    client = Client(answer)
    assert engine.choose({}, client) == chosen
    assert client.asked == 1
    assert client.closed


def test_an_engine_that_cannot_even_be_reached_means_processes() -> None:
    def unreachable(**_: Any) -> Any:
        raise DockerException("Error while fetching server API version")

    assert engine.choose({}, unreachable) == engine.PROCESSES


@pytest.mark.parametrize("wanted", [engine.DOCKER, engine.PROCESSES])
def test_the_variable_decides_without_asking(wanted: str) -> None:
    client = Client(wanted != engine.DOCKER)
    assert engine.choose({"E2E_NODES": wanted}, client) == wanted
    assert client.asked == 0


def test_a_variable_that_says_something_else_is_an_error() -> None:
    with pytest.raises(ValueError, match="E2E_NODES is 'podman'"):
        engine.choose({"E2E_NODES": "podman"}, Client(True))
