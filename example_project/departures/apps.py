from django.apps import AppConfig


class DeparturesConfig(AppConfig):
    """Flights that left New York, and what has to follow from each."""

    name = "example_project.departures"
    default_auto_field = "django.db.models.BigAutoField"
