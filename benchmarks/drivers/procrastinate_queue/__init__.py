"""procrastinate: jobs in PostgreSQL, run by an asynchronous worker; a lock keeps an order."""
