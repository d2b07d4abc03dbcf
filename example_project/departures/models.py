"""A departure, the aircraft it moves on, and the two queues of work that follow from it."""

from typing import Any

from django.db import models

from example_project.departures import services
from example_project.departures.airports import Airport
from parviraptor_celery.models import AbstractJobFactory, BackoffStrategy


class DepartureQuerySet(models.QuerySet["Departure"]):
    def same_as(self, departure: "Departure") -> "DepartureQuerySet":
        """Rows with the natural key of this departure."""
        return self.filter(
            departed_at=departure.departed_at, carrier=departure.carrier, flight=departure.flight
        )


class Departure(models.Model):  # type: ignore[django-manager-missing]
    """One flight that left; delays and times in minutes, the distance in miles."""

    departed_at = models.DateTimeField()
    carrier = models.CharField(max_length=2)
    flight = models.PositiveIntegerField()
    tailnum = models.CharField(max_length=8)
    origin = models.CharField(max_length=3, choices=Airport)
    dest = models.CharField(max_length=3)
    dep_delay_min = models.IntegerField()
    # Unknown for a flight that was diverted.
    air_time_min = models.PositiveIntegerField(null=True, blank=True)
    distance_mi = models.PositiveIntegerField()

    objects = DepartureQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["departed_at", "carrier", "flight"], name="departure_natural_key"
            )
        ]

    def __str__(self) -> str:
        return f"{self.carrier}{self.flight} {self.origin}-{self.dest}"

    def as_message(self) -> dict[str, Any]:
        """What the board is told."""
        return {
            "id": self.pk,
            "departed_at": self.departed_at.isoformat(),
            "carrier": self.carrier,
            "flight": self.flight,
            "origin": self.origin,
            "dest": self.dest,
            "dep_delay_min": self.dep_delay_min,
        }


class Aircraft(models.Model):
    """What the legs so far have made of one aircraft."""

    tailnum = models.CharField(max_length=8, primary_key=True)
    legs = models.PositiveIntegerField(default=0)
    minutes_flown = models.PositiveIntegerField(default=0)
    last_airport = models.CharField(max_length=3, blank=True)

    class Meta:
        verbose_name_plural = "aircraft"

    def __str__(self) -> str:
        return self.tailnum

    def move_on(self, departure: Departure) -> None:
        """Fly one leg.

        It reads, adds and writes without any lock of its own: that is safe only because legs of
        one aircraft never run at the same time, nor twice, nor in the wrong order.
        """
        self.legs += 1
        self.minutes_flown += departure.air_time_min or 0
        self.last_airport = departure.dest
        self.save()


class AircraftLeg(AbstractJobFactory.make_base_class(dependent_fields=["tailnum"])):  # type: ignore[misc]
    """Moves the aircraft on; in order for each aircraft, side by side for different ones."""

    # The body and its completion commit together, so that the leg counts exactly once.
    atomic = True

    departure = models.ForeignKey(Departure, on_delete=models.CASCADE, related_name="aircraft_legs")
    tailnum = models.CharField(max_length=8)
    leg_number = models.PositiveIntegerField(null=True, blank=True)

    def process(self) -> None:
        aircraft, _ = Aircraft.objects.get_or_create(pk=self.tailnum)
        aircraft.move_on(self.departure)
        self.leg_number = aircraft.legs


class LandingFeeInvoice(AbstractJobFactory.make_base_class(dependent_fields=None)):  # type: ignore[misc]
    """Asks the pricing service for the fee; order doesn't matter, patience does."""

    BACKOFF_STRATEGY = BackoffStrategy.CONSTANT
    BACKOFF_STEP_MINUTES = 0.05

    departure = models.ForeignKey(
        Departure, on_delete=models.CASCADE, related_name="landing_fee_invoices"
    )
    fee = models.DecimalField(max_digits=9, decimal_places=2, null=True, blank=True)

    def process(self) -> None:
        try:
            self.fee = services.landing_fee(self.departure.distance_mi)
        except services.ServiceUnavailable as error:
            self.raise_temporary_failure(str(error))
