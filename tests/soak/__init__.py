"""The soak: the whole system under load on real processes, while everything is broken on purpose.

python -m tests.soak --seconds 60 --database postgresql --broker redis
"""
