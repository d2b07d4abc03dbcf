"""Messages of committed transactions are published by a thread; the caller waits for nothing."""
