"""A transactional outbox for Django: what is committed is delivered, what is rolled back is not."""
