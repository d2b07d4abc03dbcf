"""Performance, measured side by side with other outboxes; see README.md."""
