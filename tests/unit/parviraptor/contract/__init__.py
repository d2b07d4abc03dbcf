"""What the job queues promise to their users, name by name: the table of the specification.

Public names only, and compact: the tests of the modules go deeper. The behaviours, by their
numbers, are in integration/queue_contract/. Each test that touches a table runs on every
kind of database, as in a project that has no other.
"""
