"""The two services outside, over HTTP: the departure board and the pricing of landings."""

from decimal import Decimal
from typing import Any

import urllib3
from django.conf import settings

# One pool per process. It is empty when a worker forks, so no socket is ever shared.
_pool = urllib3.PoolManager(
    maxsize=8, timeout=urllib3.Timeout(connect=1.0, read=3.0), retries=False
)


class ServiceUnavailable(Exception):
    """The service outside can't answer now; it is worth asking again later."""


class ServiceRefused(Exception):
    """The service outside rejects the request as such; asking again would not help."""


def show_on_board(message: dict[str, Any]) -> None:
    """Have the board show one departure. Raises unless the board says it has it."""
    _call(f"{settings.BOARD_URL}/messages", message)


def landing_fee(distance_mi: int) -> Decimal:
    """What the landing costs, in dollars, after a flight of so many miles."""
    answer = _call(f"{settings.PRICING_URL}/fees", {"distance_mi": distance_mi})
    return Decimal(answer["fee"])


def _call(url: str, body: dict[str, Any]) -> Any:
    """POST a JSON body, return the JSON answer."""
    try:
        response = _pool.request("POST", url, json=body)
    except urllib3.exceptions.HTTPError as error:
        raise ServiceUnavailable(f"{url}: {error}") from error
    if response.status >= 500:
        raise ServiceUnavailable(f"{url} answered {response.status}")
    if response.status >= 300:
        raise ServiceRefused(f"{url} answered {response.status}")
    return response.json()
