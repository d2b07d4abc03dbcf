"""The fixture ``outbox``. pytest finds this module by itself in every project.

Nothing is imported before a test asks for the fixture: neither Django nor Celery.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .test import Outbox


@pytest.fixture
def outbox() -> Iterator[Outbox]:
    """The outbox, held: events stay rows until ``outbox.drain()``; see docs/testing.md."""
    from .test import Outbox

    with Outbox().held() as held:
        yield held
