"""The test kit for users: the fixture, `drain()`, the assertions. On three databases: see
tests/integration/test_kit.py."""
