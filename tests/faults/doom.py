"""What the models have in common: a worker's death, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass


class Refused(Exception):
    """A decision that can't be taken; the text is the name of the library's exception."""


class Died(Exception):
    """The process died at a crash point."""


@dataclass
class Doom:
    """The crash point that a process dies at, when it comes there the nth time."""

    point: str = ""
    nth: int = 1

    def come_by(self, point: str) -> None:
        """Die if it is time."""
        if point == self.point:
            self.nth -= 1
            if self.nth == 0:
                raise Died(point)
