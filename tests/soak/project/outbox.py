"""The decorated functions of the soak. One of them has another name in the next version."""

from __future__ import annotations

import random
from typing import Any

from jaiminho_celery.constants import PublishStrategyType
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from tests.soak import bodies
from tests.soak.project.models import VERSION

BREAKS_SHARE = 0.05


def _deliver(item: str, lane: str = "") -> None:
    with bodies.body(item, lane):
        if random.random() < BREAKS_SHARE:
            raise bodies.MeantToBreak(item)


if VERSION >= 2:

    @save_to_outbox(aliases=[f"{__name__}:announce"])
    def proclaim(item: str) -> None:
        _deliver(item)

    announce: Any = proclaim
else:

    @save_to_outbox
    def announce(item: str) -> None:
        _deliver(item)


@save_to_outbox_stream("prices", PublishStrategyType.KEEP_ORDER, key=lambda item, key: key)
def tell_price(item: str, key: str) -> None:
    _deliver(item, f"stream {key}")
