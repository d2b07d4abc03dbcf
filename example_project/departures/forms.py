"""What a departure must look like to be accepted."""

from typing import Any

from django import forms

from example_project.departures.airports import Airport
from example_project.departures.models import Departure


class DepartureForm(forms.ModelForm):
    """One departure; its uniqueness is checked too, but only the database's constraint is sure."""

    class Meta:
        model = Departure
        fields = [
            "departed_at",
            "carrier",
            "flight",
            "tailnum",
            "origin",
            "dest",
            "dep_delay_min",
            "air_time_min",
            "distance_mi",
        ]
        error_messages = {
            "origin": {
                "invalid_choice": "Unknown origin “%(value)s”. Known are: "
                + ", ".join(Airport.values)
                + "."
            },
        }

    def clean(self) -> dict[str, Any] | None:
        # A misspelt name of an optional field would otherwise be dropped without a word.
        for name in sorted(set(self.data) - set(self.fields)):
            self.add_error(None, f"Unknown field “{name}”. Known are: {', '.join(self.fields)}.")
        return super().clean()

    @property
    def is_duplicate(self) -> bool:
        """Whether the only thing wrong is that this departure is known already."""
        codes = [error.code for errors in self.errors.as_data().values() for error in errors]
        return codes == ["unique_together"]
