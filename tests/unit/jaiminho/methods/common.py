"""What these tests share."""

from __future__ import annotations

import pytest

commits = pytest.mark.django_db(transaction=True)
