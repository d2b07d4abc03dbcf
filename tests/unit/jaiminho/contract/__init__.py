"""What the outbox promises to its users, name by name and behaviour by behaviour.

Public names only, and compact: the tests of the modules go deeper. What needs brokers, several
databases or real processes is in integration/outbox_contract/.
"""
