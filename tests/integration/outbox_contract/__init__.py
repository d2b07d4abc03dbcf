"""What the outbox promises where databases, brokers and processes are real.

Continues unit/jaiminho/contract/: public names only.
"""
