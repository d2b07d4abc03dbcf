"""What the job queues promise to their users, behaviour by behaviour, on every kind of database.

Continues unit/parviraptor/contract/: public names only. Behaviours with real workers and
processes are in test_queue_contract_workers.py.
"""
