"""The airports whose departures come in."""

from django.db import models


class Airport(models.TextChoices):
    """The three around New York. Each is a stream of its own in the outbox."""

    EWR = "EWR", "Newark Liberty"
    JFK = "JFK", "John F. Kennedy"
    LGA = "LGA", "LaGuardia"


def stream_of(airport: str) -> str:
    """Name of the outbox stream that keeps the order of this airport's departures."""
    return f"departures-{airport}"


STREAMS = tuple(stream_of(airport) for airport in Airport.values)
