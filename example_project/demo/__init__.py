"""The demo: real processes, real data, some accidents on purpose, and a ledger at the end."""
