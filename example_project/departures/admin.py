"""The example's records and queues in the admin."""

from django.contrib import admin

from example_project.departures.models import Aircraft, AircraftLeg, Departure, LandingFeeInvoice
from parviraptor_celery.admin import JobAdmin


@admin.register(Departure)
class DepartureAdmin(admin.ModelAdmin):
    list_display = ["departed_at", "carrier", "flight", "tailnum", "origin", "dest"]
    list_filter = ["origin", "carrier"]
    search_fields = ["tailnum"]


@admin.register(Aircraft)
class AircraftAdmin(admin.ModelAdmin):
    list_display = ["tailnum", "legs", "minutes_flown", "last_airport"]
    search_fields = ["tailnum"]


@admin.register(AircraftLeg)
class AircraftLegAdmin(JobAdmin):
    raw_id_fields = ["departure"]


@admin.register(LandingFeeInvoice)
class LandingFeeInvoiceAdmin(JobAdmin):
    raw_id_fields = ["departure"]
