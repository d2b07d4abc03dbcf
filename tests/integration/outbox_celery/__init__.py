"""What `OutboxCelery` does around the message: results, bypasses, events, databases, bad input."""
