"""The example's own records in the admin. Departures are looked at, not written, by hand."""

from django.contrib import admin

from example_project.departures.models import Aircraft, Departure


@admin.register(Departure)
class DepartureAdmin(admin.ModelAdmin):
    list_display = ["departed_at", "carrier", "flight", "tailnum", "origin", "dest"]
    list_filter = ["origin", "carrier"]
    search_fields = ["tailnum"]


@admin.register(Aircraft)
class AircraftAdmin(admin.ModelAdmin):
    list_display = ["tailnum", "legs", "minutes_flown", "last_airport"]
    search_fields = ["tailnum"]
