"""What a run of the tests tells about the schedules that it explored."""

from __future__ import annotations

import pytest

PROPERTY = "schedules"


def told(reports: list[pytest.TestReport]) -> list[str]:
    """Return a line for each exploration among the reports of a run."""
    return sorted(
        f"{report.nodeid.rpartition('::')[2]}: {value}"
        for report in reports
        for name, value in report.user_properties
        if name == PROPERTY
    )
