"""The Django project that the workers of the end-to-end tests run: the tests' queues and outbox."""

LOCK = 728
"""The advisory lock of PostgreSQL that bodies wait for."""
