"""What a mutation is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """A line that protects something, what it becomes, and the tests that should notice.

    ``before`` stands exactly once in the file ``path``; ``tests`` is what pytest is given.
    """

    name: str
    path: str
    before: str
    after: str
    tests: str
