"""Methods behind the outbox: with which class, or on which app, they run."""
