"""What the outbox tells the rest of the project. A receiver that raises harms nothing.

Each is sent with ``sender`` (the original function), ``event_payload`` (the first positional
argument, or ``{}``) and ``event_id``.
"""

from __future__ import annotations

from django.dispatch import Signal

event_published = Signal()
"""The hook after the commit published an event."""

event_failed_to_publish = Signal()
"""The hook failed; the relay tries again."""

event_permanently_failed = Signal()
"""The hook failed, and the event became a dead letter."""

event_published_by_events_relay = Signal()
"""The relay published an event."""

event_failed_to_publish_by_events_relay = Signal()
"""The relay failed, and tries again after a back-off."""

event_permanently_failed_by_events_relay = Signal()
"""The relay failed, and the event became a dead letter."""

event_settled = Signal()
"""A run of an event ended. Sent with ``sender`` (Event), ``event`` and ``outcome``; for logs."""
