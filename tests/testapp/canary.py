"""A module that nothing may import on the word of a message: doing so has a side effect."""

from __future__ import annotations

raise AssertionError("somebody imported the canary")
